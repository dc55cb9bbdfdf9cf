from __future__ import annotations

from typing import Any

from django.db import transaction
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from reminders.models import ReminderPreferences
from reminders.preference_serializers import PreferencesSerializer, RotateSecretQuery
from scribes.api.browsable import Resource


class Preferences(generics.RetrieveUpdateAPIView[ReminderPreferences]):
    """Your quiet hours, daily digest, webhook, and the URL of your calendar feed."""

    serializer_class = PreferencesSerializer
    http_method_names = ["get", "patch", "head", "options"]

    def get_object(self) -> ReminderPreferences:
        """For a PATCH, lock the row: concurrent changes and new secrets must not undo each other."""
        preferences = ReminderPreferences.for_user(self.request.user)  # type: ignore[arg-type]
        if self.request.method != "PATCH":
            return preferences
        same = ReminderPreferences.objects.filter(pk=preferences.pk)
        return same.select_for_update(no_key=True).get()

    @transaction.atomic
    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().patch(request, *args, **kwargs)

    def resources(self, data: Any) -> list[Resource]:
        links = {"Calendar": data["feed_url"], "New secrets": reverse("reminder-rotate-secret")}
        return [Resource("Your feed and your webhook", links, {})]


class RotateSecret(generics.GenericAPIView[ReminderPreferences]):
    """Replace the secret of the webhook or the feed. The old one stops working at once."""

    serializer_class = RotateSecretQuery

    @extend_schema(request=RotateSecretQuery, responses=PreferencesSerializer)
    def post(self, request: Request) -> Response:
        query = self.get_serializer(data=request.data)
        query.is_valid(raise_exception=True)
        preferences = ReminderPreferences.for_user(request.user)  # type: ignore[arg-type]
        preferences.rotate_secret(query.validated_data["secret"])
        return Response(PreferencesSerializer(preferences).data)
