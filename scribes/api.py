"""What all endpoints share: limits on input, one form of error, pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import serializers, views
from rest_framework.exceptions import APIException
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.utils.serializer_helpers import ReturnDict

# --- Input ----------------------------------------------------------------------------------

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def refuse_unreadable_requests(get_response: GetResponse) -> GetResponse:
    """Middleware: a body that is too large is a 413, a session key that none can be is ignored."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if int(request.META.get("CONTENT_LENGTH") or 0) > limit:
            return problem(413, f"The body is larger than {limit:,} bytes.")
        # A quoted cookie can hold a NUL, which PostgreSQL would not even look for.
        if not request.COOKIES.get(settings.SESSION_COOKIE_NAME, "").isalnum():
            request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
        return get_response(request)

    return middleware


# --- Errors ---------------------------------------------------------------------------------


PROBLEM_TYPE = "application/problem+json"


def problem_body(status: int, detail: str, errors: list[dict[str, str]]) -> dict[str, Any]:
    """One form for every error: RFC 9457, with `errors` in the form of django-allauth's."""
    title = HTTPStatus(status).phrase
    return {"title": title, "status": status, "detail": detail, "errors": errors}


def problem(status: int, detail: str) -> HttpResponse:
    body = problem_body(status, detail, [])
    return JsonResponse(body, status=status, content_type=PROBLEM_TYPE)


def problem_handler(exception: Exception, context: dict[str, Any]) -> Response | None:
    """REST framework's exception handler; None, for what is not a client's error, is a 500."""
    response = views.exception_handler(exception, context)
    if response is not None:
        errors = list(_errors(response.data))
        detail = "; ".join(sentence(error) for error in errors)
        body = problem_body(response.status_code, detail, errors)
        # A page in a browser shows errors beside the fields of this one.
        serializer = getattr(response.data, "serializer", None)
        response.data = ReturnDict(body, serializer=serializer) if serializer else body
        if getattr(context["request"], "accepted_renderer", JSONRenderer).format == "json":
            response.content_type = PROBLEM_TYPE
    return response


def _errors(data: Any, param: str = "") -> Iterator[dict[str, str]]:
    """Flatten REST framework's nested messages: {"tags": {1: ["…"]}} has the param tags.1."""
    if isinstance(data, dict):
        for key, value in data.items():
            ours = key in ("detail", api_settings.NON_FIELD_ERRORS_KEY)
            yield from _errors(value, param if ours else f"{param}.{key}".lstrip("."))
    elif isinstance(data, list):
        for value in data:
            yield from _errors(value, param)
    else:
        error = {"message": str(data), "code": getattr(data, "code", "invalid")}
        yield error | ({"param": param} if param else {})


def sentence(error: dict[str, str]) -> str:
    """One of `errors` for people to read."""
    return f"{error['param']}: {error['message']}" if "param" in error else error["message"]


class Conflict(APIException):
    """The resource is not in a state that allows this."""

    status_code = 409
    default_code = "conflict"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return problem(400, "The request is malformed.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return problem(404, f"There is nothing at {request.path}.")


def server_error(request: HttpRequest) -> HttpResponse:
    return problem(500, "Something went wrong here; it has been logged.")


# --- Pages ----------------------------------------------------------------------------------


FIRST_PAGE = {"limit": 20, "offset": 0}


class PageQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=100, default=FIRST_PAGE["limit"])
    offset = serializers.IntegerField(
        min_value=0, max_value=2**31 - 1, default=FIRST_PAGE["offset"]
    )


class NamedPage(LimitOffsetPagination):
    """`?limit=&offset=`, answered as {<name>: [...], "total": N}; wrong numbers are a 400."""

    name: ClassVar[str]

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        self.request = request
        self.limit, self.offset = _wanted(request)
        rows = list(queryset[self.offset : self.offset + self.limit + 1])
        # The last page tells how many there are; only others need another query.
        ends_here = len(rows) <= self.limit and (rows or not self.offset)
        self.count = self.offset + len(rows) if ends_here else queryset.count()
        self.display_page_controls = self.count > self.limit
        return rows[: self.limit]

    def get_paginated_response(self, data: Any) -> Response:
        return Response({self.name: data, "total": self.count})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        properties = {
            self.name: schema,
            "total": {"type": "integer", "description": "On all pages together."},
        }
        return {"type": "object", "required": list(properties), "properties": properties}

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        number = {"in": "query", "required": False}
        return [
            number | {"name": "limit", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
            number | {"name": "offset", "schema": {"type": "integer", "minimum": 0}},
        ]


def _wanted(request: Request) -> tuple[int, int]:
    """Limit and offset. Most want the first page and name neither: that needs no form, which takes
    longer to make than to fill in."""
    if FIRST_PAGE.keys().isdisjoint(request.query_params):
        return FIRST_PAGE["limit"], FIRST_PAGE["offset"]
    query = PageQuery(data=request.query_params)
    query.is_valid(raise_exception=True)
    return query.validated_data["limit"], query.validated_data["offset"]


# --- Documentation --------------------------------------------------------------------------


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Tells the OpenAPI document what `Authorization: Bearer {access_token}` is."""

    target_class = "allauth.headless.contrib.rest_framework.authentication.JWTTokenAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
