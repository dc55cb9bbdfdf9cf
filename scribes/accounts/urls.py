"""Sign-up, sign-in, refresh and sign-out for clients with a bearer token: django-allauth's views."""

from __future__ import annotations

from typing import Any

from allauth.headless.account import views
from allauth.headless.constants import Client
from allauth.headless.tokens.views import RefreshTokenView
from django.urls import path

from scribes.accounts.strict_json import strict_json
from scribes.accounts.views import SignupView


def _route(name: str, view: type[Any]) -> Any:
    return path(name, strict_json(view.as_api_view(client=Client.APP)), name=f"auth-{name}")


urlpatterns = [
    _route("signup", SignupView),
    _route("login", views.LoginView),
    _route("session", views.SessionView),
    _route("refresh", RefreshTokenView),
    _route("password", views.ChangePasswordView),
]
