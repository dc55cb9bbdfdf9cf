"""Wraps django-allauth's views: the same strict JSON and the same form of error as everywhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import ParseError

from scribes.api.errors import error_text, problem
from scribes.api.parsers import parse_json
from scribes.api.problems import PROBLEM_TYPE, problem_body

View = Callable[..., HttpResponse]

# django-allauth answers these without a message.
DETAILS = {
    400: "The token is invalid or was already used.",
    401: "Authentication required.",
    409: "You are already signed in.",
    429: "Too many attempts. Try again later.",
}


def strict_json(view: View) -> View:
    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            if request.body and not isinstance(parse_json(request.body), dict):
                raise ParseError("The body must be a JSON object.")
        except ParseError as error:
            return problem(400, str(error.detail))
        return _as_problem(view(request, *args, **kwargs))

    return wrapped


def _as_problem(response: HttpResponse) -> HttpResponse:
    """Add the fields of a problem document to an error of django-allauth, which has `status` and
    `errors` already."""
    if response.status_code < 400:
        return response
    body = json.loads(response.content or "{}")
    errors = body.get("errors", [])
    detail = "; ".join(map(error_text, errors)) or DETAILS.get(response.status_code, "")
    response.content = json.dumps(problem_body(response.status_code, detail, errors) | body)
    response.headers["Content-Type"] = PROBLEM_TYPE
    return response
