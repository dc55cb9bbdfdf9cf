from __future__ import annotations

from typing import Any

from django.db.models import TimeField
from rest_framework import serializers

from reminders import webhook
from reminders.feed import feed_url
from reminders.models import ReminderPreferences
from reminders.preferences import NEW_SECRETS
from scribes.api.browsable import OptionalTimeField


class PreferencesSerializer(serializers.ModelSerializer[ReminderPreferences]):
    serializer_field_mapping = {
        **serializers.ModelSerializer.serializer_field_mapping,
        TimeField: OptionalTimeField,
    }

    webhook_url = serializers.CharField(
        max_length=2000,
        allow_blank=True,
        required=False,
        help_text="Called for reminders with the channel webhook, signed with webhook_secret.",
    )
    feed_url = serializers.SerializerMethodField(
        help_text="Your calendar feed. Everybody who knows this URL can read it."
    )

    class Meta:
        model = ReminderPreferences
        fields = (
            *("quiet_from", "quiet_until", "digest_at"),
            *("webhook_url", "webhook_secret", "feed_url"),
        )
        read_only_fields = ("webhook_secret",)
        extra_kwargs = {
            "quiet_from": {
                "help_text": "Start of quiet hours in your time zone. E-mail and webhooks wait."
            },
            "quiet_until": {
                "help_text": "End of quiet hours; before quiet_from, it means the next morning."
            },
            "digest_at": {"help_text": "Time of day for one daily mail instead of many."},
        }

    def get_feed_url(self, preferences: ReminderPreferences) -> str:
        return feed_url(preferences)

    def validate_webhook_url(self, url: str) -> str:
        """Check only the URL's form. Its addresses are checked at each call."""
        if url:
            try:
                webhook.check_url(url)
            except webhook.RefusedAddress as error:
                raise serializers.ValidationError(str(error)) from error
        return url

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        names = ("quiet_from", "quiet_until")
        ends = [attrs.get(name, getattr(self.instance, name, None)) for name in names]
        if (ends[0] is None) != (ends[1] is None):
            raise serializers.ValidationError("Quiet hours need both quiet_from and quiet_until.")
        return attrs


class RotateSecretQuery(serializers.Serializer[Any]):
    secret = serializers.ChoiceField(
        choices=list(NEW_SECRETS),
        help_text="The secret that signs webhook calls, or the one in your feed's URL.",
    )
