"""One form of error for every endpoint: a problem document of RFC 9457."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from rest_framework import views
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.utils.serializer_helpers import ReturnDict

from scribes.api.problems import PROBLEM_TYPE, RETRY_AFTER_SECONDS, problem_body


def problem(status: int, detail: str) -> HttpResponse:
    body = problem_body(status, detail, [])
    return JsonResponse(body, status=status, content_type=PROBLEM_TYPE)


def unavailable(detail: str) -> HttpResponse:
    response = problem(503, detail)
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def problem_handler(exception: Exception, context: dict[str, Any]) -> Response | None:
    """REST framework's exception handler. None for an unexpected exception, which becomes a 500."""
    response = views.exception_handler(exception, context)
    if response is not None:
        errors = list(_flatten(response.data))
        detail = "; ".join(error_text(error) for error in errors)
        body = problem_body(response.status_code, detail, errors)
        # The browsable API shows errors beside the fields of this serializer.
        serializer = getattr(response.data, "serializer", None)
        response.data = ReturnDict(body, serializer=serializer) if serializer else body
        if getattr(context["request"], "accepted_renderer", JSONRenderer).format == "json":
            response.content_type = PROBLEM_TYPE
    return response


def _flatten(data: Any, param: str = "") -> Iterator[dict[str, str]]:
    """Flatten REST framework's nested messages: {"tags": {1: ["…"]}} has the param tags.1."""
    if isinstance(data, dict):
        for key, value in data.items():
            has_no_field = key in ("detail", api_settings.NON_FIELD_ERRORS_KEY)
            yield from _flatten(value, param if has_no_field else f"{param}.{key}".lstrip("."))
    elif isinstance(data, list):
        for value in data:
            yield from _flatten(value, param)
    else:
        error = {"message": str(data), "code": getattr(data, "code", "invalid")}
        yield error | ({"param": param} if param else {})


def error_text(error: dict[str, str]) -> str:
    """One entry of `errors` as text."""
    return f"{error['param']}: {error['message']}" if "param" in error else error["message"]


class Conflict(APIException):
    """The state of the resource does not allow the request."""

    status_code = 409
    default_code = "conflict"


# --- Django's own error handlers ------------------------------------------------------------


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return problem(400, "The request is malformed.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return problem(404, f"There is nothing at {request.path}.")


def server_error(request: HttpRequest) -> HttpResponse:
    """Django calls this while it handles the exception. A database that does not answer in time is a
    503: the client may try again."""
    if isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        return unavailable("The database did not answer in time. Try again later.")
    return problem(500, "The server failed to answer this request. The error has been logged.")
