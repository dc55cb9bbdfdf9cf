"""The guard in front of all views, and the ids of requests."""

from __future__ import annotations

import json
from uuid import UUID

import pytest
from django.conf import LazySettings
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from scribes.api.middleware import request_guard
from scribes.monitoring.logging import current_request_id, request_id


def echo_session(request: HttpRequest) -> HttpResponse:
    """A view that answers with the session cookie that reached it."""
    return HttpResponse(request.COOKIES.get("sessionid", "no session"))


def guarded(request: HttpRequest) -> HttpResponse:
    response = request_guard(echo_session)(request)
    assert isinstance(response, HttpResponse)
    return response


@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 413)])
def test_request_guard_limits_the_size_of_the_body(
    settings: LazySettings, excess: int, status: int
):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    body = b"x" * (1000 + excess)
    response = guarded(RequestFactory().post("/notes", body, "application/json"))
    assert response.status_code == status


def test_request_guard_answers_with_a_problem_document(settings: LazySettings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    response = guarded(RequestFactory().post("/notes", b"x" * 1001, "application/json"))
    assert response.headers["Content-Type"] == "application/problem+json"
    body = json.loads(response.content)
    assert (body["status"], body["title"]) == (413, "Request Entity Too Large")
    assert body["detail"] == "The request body is larger than 1,000 bytes."


@pytest.mark.parametrize("length", ["", "0"])
def test_request_guard_accepts_requests_without_a_body(length: str):
    request = RequestFactory().get("/notes", headers={"Content-Length": length})
    assert guarded(request).status_code == 200


@pytest.mark.parametrize(
    ("cookie", "seen"),
    [
        ("a1b2c3", "a1b2c3"),
        ("", "no session"),
        ("a\0b", "no session"),
        ("a b", "no session"),
        ("../x", "no session"),
    ],
)
def test_request_guard_drops_malformed_session_cookies(cookie: str, seen: str):
    request = RequestFactory().get("/notes")
    request.COOKIES["sessionid"] = cookie
    assert guarded(request).content.decode() == seen


def test_request_guard_keeps_other_cookies():
    request = RequestFactory().get("/notes")
    request.COOKIES.update(sessionid="a\0b", csrftoken="a\0b")
    guarded(request)
    assert set(request.COOKIES) == {"csrftoken"}


def test_request_id_is_in_the_response_and_the_log_context():
    seen = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(current_request_id())
        return HttpResponse()

    responses = [request_id(view)(RequestFactory().get("/")) for _ in range(2)]
    assert [response.headers["X-Request-ID"] for response in responses] == seen
    assert len({UUID(value) for value in seen}) == 2
    assert current_request_id() == ""


@pytest.mark.django_db
def test_request_id_is_in_the_response_to_a_rejected_request(client: Client):
    response = client.get("/me")
    assert response.status_code == 401
    assert UUID(response.headers["X-Request-ID"]).version == 4
