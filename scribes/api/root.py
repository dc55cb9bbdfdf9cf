from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.views import APIView

ROUTES = {
    "notes": "note-list",
    "jobs": "job-list",
    "search": "semantic-search",
    "scripture coverage": "scripture-coverage",
    "parse scripture references": "scripture-parse",
    "embedding status": "semantic-status",
    "regenerate embeddings": "regenerate-embeddings",
    "reminders": "reminder-list",
    "reminder preferences": "reminder-preferences",
    "reminder preview": "reminder-preview",
    "rotate a secret": "reminder-rotate-secret",
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


class Root(APIView):
    """Links to every part of the API."""

    permission_classes = (AllowAny,)

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        return Response({key: reverse(name, request=request) for key, name in ROUTES.items()})
