from __future__ import annotations

from typing import Any

from allauth.headless.account import views as allauth_views
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from rest_framework import generics

from scribes.accounts.serializers import UserSerializer
from scribes.api.errors import problem
from scribes.models import User


class SignupView(allauth_views.SignupView):  # type: ignore[misc] # it has no types
    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Two concurrent sign-ups with one address: the database accepts one of them."""
        try:
            with transaction.atomic():
                response: HttpResponse = super().post(request, *args, **kwargs)
                return response
        except IntegrityError:
            return problem(400, "A user is already registered with this email address.")


class Me(generics.RetrieveUpdateAPIView[User]):
    """Your account, with the time zone of your reminders."""

    serializer_class = UserSerializer
    http_method_names = ["get", "patch", "head", "options"]

    def get_object(self) -> User:
        return self.request.user  # type: ignore[return-value]
