"""Sign-up, sign-in, refresh and sign-out for clients with a bearer token.

The work is django-allauth's; here are the routes of what is configured, and around each view the
same strict JSON and the same form of error as everywhere else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from allauth.headless.account import views
from allauth.headless.constants import Client
from allauth.headless.tokens.views import RefreshTokenView
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework.exceptions import ParseError

from scribes.api import PROBLEM_TYPE, problem, problem_body, sentence
from scribes.json_input import parse_json

View = Callable[..., HttpResponse]


class SignupView(views.SignupView):  # type: ignore[misc] # it has no types
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Of two sign-ups at once with one address, the database lets one in."""
        try:
            with transaction.atomic():
                response: HttpResponse = super().post(request, *args, **kwargs)
                return response
        except IntegrityError:
            return problem(400, "A user is already registered with this email address.")


def strict(view: View) -> View:
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
    """An error of django-allauth has `status` and `errors` already; add the rest of our form."""
    if response.status_code < 400:
        return response
    body = json.loads(response.content or "{}")
    errors = body.get("errors", [])
    detail = "; ".join(map(sentence, errors)) or _DETAILS.get(response.status_code, "")
    response.content = json.dumps(problem_body(response.status_code, detail, errors) | body)
    response.headers["Content-Type"] = PROBLEM_TYPE
    return response


_DETAILS = {
    400: "The token is not valid, or has been used.",
    401: "Nobody is signed in.",
    409: "Somebody is signed in already.",
    429: "Too many attempts; try again later.",
}


def _route(name: str, view: type[Any]) -> Any:
    return path(name, strict(view.as_api_view(client=Client.APP)), name=f"auth-{name}")


urlpatterns = [
    _route("signup", SignupView),
    _route("login", views.LoginView),
    _route("session", views.SessionView),
    _route("refresh", RefreshTokenView),
    _route("password", views.ChangePasswordView),
]
