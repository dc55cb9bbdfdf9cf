from __future__ import annotations

from typing import Any

from rest_framework import serializers

from reminders.models import Notification


class NotificationSerializer(serializers.ModelSerializer[Notification]):
    class Meta:
        model = Notification
        fields = (
            *("id", "reminder_id", "title", "message", "occurrence_at", "created_at", "read_at"),
        )
        read_only_fields = fields


class NotificationQuery(serializers.Serializer[Any]):
    unread = serializers.BooleanField(
        required=False,
        allow_null=True,
        default=None,
        help_text="true: only unread notifications; false: only read ones.",
    )


class ReadCount(serializers.Serializer[Any]):
    read = serializers.IntegerField(help_text="Number of notifications that were unread before.")
