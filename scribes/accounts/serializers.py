from __future__ import annotations

from rest_framework import serializers

from scribes.models import User


class UserSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("id", "email", "time_zone")
        read_only_fields = ("email",)
        extra_kwargs = {
            "time_zone": {"help_text": "IANA name, such as Europe/Berlin. Your reminders use it."}
        }
