from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from scribes.api.errors import problem

GetResponse = Callable[[HttpRequest], HttpResponseBase]


def request_guard(get_response: GetResponse) -> GetResponse:
    """Middleware: answer 413 to a body that is too large, and drop a malformed session cookie."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if int(request.META.get("CONTENT_LENGTH") or 0) > limit:
            return problem(413, f"The request body is larger than {limit:,} bytes.")
        # A quoted cookie can hold a NUL, and PostgreSQL raises an error for it.
        if not request.COOKIES.get(settings.SESSION_COOKIE_NAME, "").isalnum():
            request.COOKIES.pop(settings.SESSION_COOKIE_NAME, None)
        return get_response(request)

    return middleware
