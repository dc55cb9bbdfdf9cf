"""scribes.api.errors: every error is a problem document."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from rest_framework.exceptions import APIException, NotFound, Throttled, ValidationError
from rest_framework.test import APIRequestFactory

from scribes.api.errors import Conflict, error_text, problem_handler


def handle(exception: Exception) -> dict[str, Any]:
    response = problem_handler(exception, {"request": APIRequestFactory().get("/")})
    assert response
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = response.data
    return body


@pytest.mark.parametrize(
    ("exception", "status", "title", "detail"),
    [
        (Conflict("The job has already ended."), 409, "Conflict", "The job has already ended."),
        (NotFound("No such note."), 404, "Not Found", "No such note."),
        (ValidationError("Both are needed."), 400, "Bad Request", "Both are needed."),
        (APIException("Down."), 500, "Internal Server Error", "Down."),
    ],
)
def test_problem_has_the_status_and_message_of_the_exception(
    exception: Exception, status: int, title: str, detail: str
):
    body = handle(exception)
    assert (body["status"], body["title"], body["detail"]) == (status, title, detail)
    (error,) = body["errors"]
    assert error["message"] == detail
    assert "param" not in error


def test_problem_names_the_parameter_of_each_error():
    nested: Any = {"title": ["Blank."], "tags": {1: ["Too long."]}, "non_field_errors": ["No."]}
    body = handle(ValidationError(nested))
    assert body["errors"] == [
        {"message": "Blank.", "code": "invalid", "param": "title"},
        {"message": "Too long.", "code": "invalid", "param": "tags.1"},
        {"message": "No.", "code": "invalid"},
    ]
    assert body["detail"] == "title: Blank.; tags.1: Too long.; No."


def test_problem_keeps_the_code_of_the_error():
    (error,) = handle(ValidationError({"title": ["Taken."]}, code="unique"))["errors"]
    assert error == {"message": "Taken.", "code": "unique", "param": "title"}
    assert handle(Throttled())["errors"][0]["code"] == "throttled"


def test_unexpected_exception_has_no_problem_document():
    """Django answers it with the 500 handler and logs the traceback."""
    assert problem_handler(RuntimeError("secret"), {"request": None}) is None


def test_error_text_starts_with_the_parameter():
    assert error_text({"param": "title", "message": "Blank."}) == "title: Blank."
    assert error_text({"message": "No."}) == "No."


def test_500_tells_nothing_about_the_error(monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the password is s3cret")

    monkeypatch.setattr("scribes.api.root.reverse", broken)
    response = Client(raise_request_exception=False).get("/")
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"].startswith("The server failed to answer")
    assert b"s3cret" not in response.content
