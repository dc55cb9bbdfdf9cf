"""Serializer fields for times and time zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.utils import timezone
from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.utils.html import is_html_input

from scribes.models import validate_time_zone

MAX_AHEAD = timedelta(days=50 * 365)


class AwareDateTimeField(serializers.DateTimeField):
    """A time with its UTC offset. A time without one is ambiguous and therefore rejected."""

    default_error_messages = {
        "naive": "Give the offset from UTC: 2027-01-31T19:00:00+01:00, or Z for UTC."
    }

    def get_value(self, dictionary: Any) -> Any:
        """Treat an empty form input as missing."""
        value = super().get_value(dictionary)
        return empty if value == "" and is_html_input(dictionary) else value

    def enforce_timezone(self, value: datetime) -> datetime:
        if timezone.is_naive(value):
            self.fail("naive")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            self.fail("invalid", format="YYYY-MM-DDThh:mm:ss+hh:mm")


class FutureDateTimeField(AwareDateTimeField):
    """A time in the next 50 years, in whole seconds like the times of rules."""

    default_error_messages = {
        "past": "This time is in the past.",
        "far": "This time is more than 50 years ahead.",
    }

    def to_internal_value(self, value: Any) -> datetime:
        moment = super().to_internal_value(value).replace(microsecond=0)
        now = timezone.now()
        if moment <= now:
            self.fail("past")
        if moment > now + MAX_AHEAD:
            self.fail("far")
        return moment


class TimeZoneField(serializers.CharField):
    """The name of an IANA time zone."""

    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        try:
            validate_time_zone(name)
        except DjangoValidationError as error:
            raise serializers.ValidationError(error.messages) from error
        return name


class ZonedDateTimeField(serializers.DateTimeField):
    """For output: keeps the UTC offset of the value."""

    def enforce_timezone(self, value: datetime) -> datetime:
        return value
