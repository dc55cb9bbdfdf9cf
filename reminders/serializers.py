from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.models import TimeField
from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.fields import empty
from rest_framework.utils.html import is_html_input

from notes.models import Note
from reminders import webhook
from reminders.models import (
    UNREADABLE,
    Channel,
    Delivery,
    DeliveryAttempt,
    Notification,
    Reminder,
    ReminderPreferences,
)
from reminders.recurrence import MAX_RULE_CHARACTERS, Recurrence, RuleError, in_words
from scribes.browsable import Choices, OptionalTimeField, Text
from scribes.models import User, validate_time_zone

NEXT_TIMES = 5
LONGEST_AHEAD = timedelta(days=50 * 365)


# --- Fields ---------------------------------------------------------------------------------


class AwareDateTimeField(serializers.DateTimeField):
    """An instant. Without an offset nobody knows which one is meant, so that is refused."""

    default_error_messages = {
        "naive": "Say the offset from UTC: 2027-01-31T19:00:00+01:00, or Z for UTC."
    }

    def get_value(self, dictionary: Any) -> Any:
        """A form's empty input says nothing."""
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
    """In whole seconds, as rules are."""

    default_error_messages = {
        "past": "This time is in the past.",
        "far": "This time is more than 50 years ahead.",
    }

    def to_internal_value(self, value: Any) -> datetime:
        moment = super().to_internal_value(value).replace(microsecond=0)
        now = timezone.now()
        if moment <= now:
            self.fail("past")
        if moment > now + LONGEST_AHEAD:
            self.fail("far")
        return moment


class TimeZoneField(serializers.CharField):
    def to_internal_value(self, data: Any) -> str:
        name = super().to_internal_value(data)
        try:
            validate_time_zone(name)
        except DjangoValidationError as error:
            raise serializers.ValidationError(error.messages) from error
        return name


class ZonedDateTimeField(serializers.DateTimeField):
    """For output: with the offset that it comes with."""

    def enforce_timezone(self, value: datetime) -> datetime:
        return value


def recurrence(rule: str, start: datetime, zone: ZoneInfo) -> Recurrence:
    """Raises ValidationError for `rrule`."""
    try:
        return Recurrence(rule, start, zone)
    except RuleError as error:
        raise serializers.ValidationError({"rrule": str(error)}) from error


def first_time(repeated: Recurrence, earliest: datetime) -> datetime:
    """Not before `earliest`. Raises ValidationError where there is none."""
    first = repeated.after(earliest - timedelta(microseconds=1))
    if first is None or first > earliest + LONGEST_AHEAD:
        raise serializers.ValidationError({"rrule": "This rule never fires."})
    return first


# --- Reminders ------------------------------------------------------------------------------


class LastDeliverySerializer(serializers.ModelSerializer[Delivery]):
    class Meta:
        model = Delivery
        fields = ("id", "channel", "status", "occurrence_at", "sent_at", "is_late", "error")
        read_only_fields = fields


class NoSuchNote(NotFound):
    def __init__(self) -> None:
        super().__init__({"note_id": "There is no such note."})


class ReminderSerializer(serializers.ModelSerializer[Reminder]):
    note_id = serializers.IntegerField(help_text="The id of one of your notes.")
    scheduled_at = FutureDateTimeField(
        help_text="The next time. With a rule: the first time it fires at or after this."
    )
    channels = Choices(
        child=serializers.ChoiceField(choices=Channel.choices),
        allow_empty=False,
        max_length=len(Channel),
        required=False,
        help_text="E-mail if not said.",
    )
    rrule = serializers.CharField(
        max_length=MAX_RULE_CHARACTERS,
        required=False,
        allow_blank=True,
        help_text="RFC 5545, at most once a day: FREQ=MONTHLY;BYDAY=-1SU. Empty: once.",
    )
    time_zone = TimeZoneField(
        required=False, help_text="IANA name, for the rule and for people. Yours if not said."
    )
    message = Text(
        max_length=2000,
        required=False,
        allow_blank=True,
        help_text="What the reminder says beside the note's title.",
        style={"base_template": "textarea.html", "rows": 3},
    )
    rule_in_words = serializers.SerializerMethodField()
    next = serializers.SerializerMethodField(help_text="The next five times, in its time zone.")
    last_delivery = serializers.SerializerMethodField()

    class Meta:
        model = Reminder
        fields = (
            "id",
            "note_id",
            "status",
            "scheduled_at",
            "time_zone",
            "rrule",
            "rule_in_words",
            "next",
            "channels",
            "message",
            "last_delivery",
            "error",
            "created_at",
            "updated_at",
        )
        read_only_fields = ("status", "error")

    def get_rule_in_words(self, reminder: Reminder) -> str | None:
        try:
            rule = reminder.recurrence
        except UNREADABLE:
            return None
        return in_words(rule) if rule else None

    def get_next(self, reminder: Reminder) -> list[datetime]:
        return reminder.upcoming(NEXT_TIMES)

    def get_last_delivery(self, reminder: Reminder) -> dict[str, Any] | None:
        delivery = latest_delivery(reminder)
        return LastDeliverySerializer(delivery).data if delivery else None

    def validate_note_id(self, note_id: int) -> int:
        """Somebody else's note is as missing as one that never was: 404."""
        if not Note.objects.for_user(self.context["request"].user).filter(pk=note_id).exists():
            raise NoSuchNote
        return note_id

    def validate_channels(self, channels: list[str]) -> list[str]:
        return list(dict.fromkeys(channels))

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.keys() & {"scheduled_at", "rrule", "time_zone"}:
            return attrs | self._schedule(attrs)
        return attrs

    def _schedule(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """All fields that say when. What is not given stays; of the time, what the clock shows."""
        zone = ZoneInfo(attrs.get("time_zone") or self._time_zone())
        rule = attrs.get("rrule", self.instance.rrule if self.instance else "")
        earliest = attrs.get("scheduled_at") or timezone.now()
        start = self._start(attrs.get("scheduled_at"), zone, rule)
        due = attrs.get("scheduled_at") or start.replace(tzinfo=zone).astimezone(UTC)
        if rule:
            due = first_time(recurrence(rule, start, zone), earliest)
            if self.instance is None or attrs.keys() & {"scheduled_at", "rrule"}:
                start = _anchor(due.astimezone(zone).replace(tzinfo=None), start, rule)
        elif due < earliest:
            raise serializers.ValidationError({"time_zone": "There, this time is in the past."})
        return {
            "status": Reminder.Status.PENDING,
            "scheduled_at": due,
            "start_date": start.date(),
            "start_time": start.time(),
            "time_zone": zone.key,
            "rrule": rule,
            "error": "",
        }

    def _time_zone(self) -> str:
        user: User = self.context["request"].user
        return self.instance.time_zone if self.instance else user.time_zone

    def _start(self, given: datetime | None, zone: ZoneInfo, rule: str) -> datetime:
        """On the clock of the zone. A reminder that is moved to another zone keeps its clock."""
        if given:
            return given.astimezone(zone).replace(tzinfo=None)
        assert self.instance  # noqa: S101 a new one has a time
        if self.instance.rrule and rule:
            return datetime.combine(self.instance.start_date, self.instance.start_time)
        return self.instance.scheduled_at.astimezone(self.instance.zone).replace(tzinfo=None)


def _anchor(first: datetime, start: datetime, rule: str) -> datetime:
    """Where a rule starts: its first occurrence, but at the time of day that was asked for, as a
    change of clocks may have moved that one. Parts such as BYHOUR say the time themselves."""
    own_time = any(part in rule.upper() for part in ("BYHOUR", "BYMINUTE", "BYSECOND"))
    return first if own_time else datetime.combine(first.date(), start.time())


def latest_delivery(reminder: Reminder) -> Delivery | None:
    """From the list's prefetch where there is one."""
    if hasattr(reminder, "latest_deliveries"):
        return next(iter(reminder.latest_deliveries), None)
    return reminder.deliveries.order_by("-created_at").first()


class ReminderQuery(serializers.Serializer[Any]):
    """The filters of the list."""

    status = serializers.ChoiceField(
        choices=Reminder.Status.choices, required=False, help_text="How they stand."
    )
    note_id = serializers.IntegerField(
        min_value=1, max_value=2**63 - 1, required=False, help_text="Of this note."
    )
    due_before = AwareDateTimeField(required=False, help_text="The next time is before this.")
    due_after = AwareDateTimeField(required=False, help_text="The next time is after this.")

    LOOKUPS = {"due_before": "scheduled_at__lt", "due_after": "scheduled_at__gt"}

    def filters(self) -> dict[str, Any]:
        return {self.LOOKUPS.get(name, name): value for name, value in self.validated_data.items()}


class SnoozeSerializer(serializers.Serializer[Any]):
    """Either of the two."""

    until = FutureDateTimeField(required=False, help_text="Either until this time,")
    minutes = serializers.IntegerField(
        min_value=1,
        max_value=60 * 24 * 366,
        required=False,
        help_text="or for so many minutes from now.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError("Say either until or minutes.")
        return attrs

    def moment(self) -> datetime:
        if until := self.validated_data.get("until"):
            return until  # type: ignore[no-any-return]
        now = timezone.now().replace(microsecond=0)
        return now + timedelta(minutes=self.validated_data["minutes"])


class PreviewQuery(serializers.Serializer[Any]):
    rrule = serializers.CharField(
        max_length=MAX_RULE_CHARACTERS,
        help_text="RFC 5545, at most once a day: FREQ=MONTHLY;BYDAY=-1SU.",
    )
    time_zone = TimeZoneField(required=False, help_text="IANA name. Yours if not said.")
    scheduled_at = FutureDateTimeField(help_text="It fires for the first time at or after this.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The answer."""
        zone = ZoneInfo(attrs.get("time_zone") or self.context["request"].user.time_zone)
        earliest = attrs["scheduled_at"]
        start = earliest.astimezone(zone).replace(tzinfo=None)
        rule = recurrence(attrs["rrule"], start, zone)
        first = first_time(rule, earliest)
        times = rule.upcoming(first - timedelta(microseconds=1), NEXT_TIMES)
        return {"rule_in_words": in_words(rule), "time_zone": zone.key, "next": times}


class Preview(serializers.Serializer[Any]):
    rule_in_words = serializers.CharField()
    time_zone = serializers.CharField()
    next = serializers.ListField(child=ZonedDateTimeField())


# --- Deliveries and notifications -----------------------------------------------------------


class AttemptSerializer(serializers.ModelSerializer[DeliveryAttempt]):
    class Meta:
        model = DeliveryAttempt
        fields = ("number", "outcome", "reason", "ended_at")
        read_only_fields = fields


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    log = AttemptSerializer(many=True)
    lateness_seconds = serializers.FloatField(
        help_text="From the time it was due to the time it was sent; null until then."
    )

    class Meta:
        model = Delivery
        fields = (
            "id",
            "channel",
            "status",
            "occurrence_at",
            "is_late",
            "attempts",
            "next_attempt_at",
            "sent_at",
            "lateness_seconds",
            "error",
            "log",
        )
        read_only_fields = fields


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
        help_text="Or, if false, those you have read.",
    )


class ReadCount(serializers.Serializer[Any]):
    read = serializers.IntegerField(help_text="How many were unread until now.")


# --- Preferences ----------------------------------------------------------------------------


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
    feed_url = serializers.SerializerMethodField(help_text="Whoever knows it can read it.")

    class Meta:
        model = ReminderPreferences
        fields = (
            *("quiet_from", "quiet_until", "digest_at"),
            *("webhook_url", "webhook_secret", "feed_url"),
        )
        read_only_fields = ("webhook_secret",)
        extra_kwargs = {
            "quiet_from": {"help_text": "Time of day in your zone. E-mail and webhooks wait."},
            "quiet_until": {"help_text": "Then they go out. Before quiet_from: the next morning."},
            "digest_at": {"help_text": "One mail a day at this time, instead of many."},
        }

    def get_feed_url(self, preferences: ReminderPreferences) -> str:
        from reminders.feed import feed_url

        return feed_url(preferences)

    def validate_webhook_url(self, url: str) -> str:
        """Only its form: its addresses are checked each time it is called."""
        if url:
            try:
                webhook.check_url(url)
            except webhook.RefusedAddress as error:
                raise serializers.ValidationError(str(error)) from error
        return url

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        ends = [
            attrs.get(n, getattr(self.instance, n, None)) for n in ("quiet_from", "quiet_until")
        ]
        if (ends[0] is None) != (ends[1] is None):
            raise serializers.ValidationError("Quiet hours need both quiet_from and quiet_until.")
        return attrs


class RenewQuery(serializers.Serializer[Any]):
    of = serializers.ChoiceField(
        choices=["webhook", "feed"],
        help_text="What signs calls of your webhook, or the address of your calendar feed.",
    )
