"""Problem documents (RFC 9457). This module needs no apps, so that the web server can use it, too."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

PROBLEM_TYPE = "application/problem+json"
# What a client is told to wait after a 503.
RETRY_AFTER_SECONDS = 5


def problem_body(status: int, detail: str, errors: list[dict[str, str]]) -> dict[str, Any]:
    """A problem document whose `errors` have the form of django-allauth's."""
    title = HTTPStatus(status).phrase
    return {"title": title, "status": status, "detail": detail, "errors": errors}
