from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

from scribes.models import User
from scribes.serializers import UserSerializer


class Me(generics.RetrieveUpdateAPIView[User]):
    """Yourself, and the time zone your reminders are in."""

    serializer_class = UserSerializer
    http_method_names = ["get", "patch", "head", "options"]

    def get_object(self) -> User:
        return self.request.user  # type: ignore[return-value]


class Root(APIView):
    """Where everything is."""

    permission_classes = (AllowAny,)

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        names = {
            "notes": "note-list",
            "jobs": "job-list",
            "search": "semantic-search",
            "embedding status": "semantic-status",
            "regenerate embeddings": "regenerate-embeddings",
            "reminders": "reminder-list",
            "reminder preferences": "reminder-preferences",
            "reminder preview": "reminder-preview",
            "renew a secret": "reminder-renew-secret",
            "notifications": "notification-list",
            "mark all notifications as read": "notification-read-all",
            "me": "me",
            "documentation": "docs",
            "schema": "schema",
            "sign up": "auth-signup",
            "sign in": "auth-login",
            "sign in with a browser": "rest_framework:login",
            "admin": "admin:index",
        }
        return Response({key: reverse(name, request=request) for key, name in names.items()})
