"""Strict JSON, and django-allauth's views behind it."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import RequestFactory
from rest_framework.exceptions import ParseError

from scribes.accounts.strict_json import DETAILS, strict_json
from scribes.api.parsers import StrictJSONParser, parse_json


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, -2.5e3, true, null]}', {"a": [1, -2500.0, True, None]}),
        ('"שָׁלוֹם 🐑"'.encode(), "שָׁלוֹם 🐑"),
        (rb'"\ud83d\udc11"', "🐑"),
        (rb'"\\u0000"', "\\u0000"),
        (b"1e308", 1e308),
        (b"12345678901234567890123", 12345678901234567890123),
    ],
)
def test_parse_json_accepts_valid_json(body: bytes, value: Any):
    assert parse_json(body) == value
    assert StrictJSONParser().parse(BytesIO(body)) == value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        (b'"\xff"', "not valid JSON"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"1e999", "1e999 is too large"),
        (b"-1e999", "-1e999 is too large"),
        (rb'"a\u0000b"', "NUL"),
        (rb'{"a\u0000b": 1}', "NUL"),
        (rb'[{"a": ["\ud800"]}]', "surrogates"),
        (rb'{"\udfff": 1}', "surrogates"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_parse_json_rejects_what_cannot_be_stored(body: bytes, message: str):
    with pytest.raises(ParseError, match=message):
        parse_json(body)


def test_parse_json_quotes_only_the_start_of_a_long_number():
    with pytest.raises(ParseError) as error:
        parse_json(b"1" * 400 + b".0")
    assert len(str(error.value)) < 100


def call(body: bytes, response: HttpResponse | None = None) -> HttpResponse:
    """A request to a view of django-allauth's that answers with this response."""

    @strict_json
    def view(request: HttpRequest) -> HttpResponse:
        return response or JsonResponse({"status": 200})

    return view(RequestFactory().post("/auth/login", body, "application/json"))


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"null", b"1", b"{", rb'{"a": "\u0000"}'])
def test_strict_json_is_400_unless_the_body_is_an_object(body: bytes):
    response = call(body)
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"
    assert json.loads(response.content)["detail"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"email": "a@b.example"}'])
def test_strict_json_calls_the_view_with_a_valid_body(body: bytes):
    assert json.loads(call(body).content) == {"status": 200}


def test_strict_json_completes_the_errors_of_the_view():
    errors = [{"message": "Wrong.", "code": "x", "param": "email"}, {"message": "Bad."}]
    response = call(b"{}", JsonResponse({"status": 400, "errors": errors}, status=400))
    assert response.headers["Content-Type"] == "application/problem+json"
    assert json.loads(response.content) == {
        "title": "Bad Request",
        "status": 400,
        "detail": "email: Wrong.; Bad.",
        "errors": errors,
    }


@pytest.mark.parametrize(("status", "detail"), DETAILS.items())
def test_strict_json_explains_errors_without_a_message(status: int, detail: str):
    for response in (JsonResponse({"status": status}, status=status), HttpResponse(status=status)):
        body = json.loads(call(b"", response).content)
        assert (body["status"], body["detail"], body["errors"]) == (status, detail, [])
