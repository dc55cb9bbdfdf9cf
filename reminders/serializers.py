from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import NotFound

from notes.models import Note
from reminders.fields import (
    MAX_AHEAD,
    AwareDateTimeField,
    FutureDateTimeField,
    TimeZoneField,
    ZonedDateTimeField,
)
from reminders.models import Channel, Delivery, DeliveryAttempt, Reminder
from reminders.recurrence import MAX_RULE_CHARACTERS, Recurrence, RuleError
from reminders.rrule_text import describe
from scribes.api.browsable import CheckboxListField, MultilineTextField
from scribes.models import User

MAX_NEXT_TIMES = 5
RULE_HELP = "RFC 5545 rule that fires at most once a day, such as FREQ=MONTHLY;BYDAY=-1SU."


def parse_recurrence(rule: str, start: datetime, zone: ZoneInfo) -> Recurrence:
    """Raises ValidationError for the field `rrule`."""
    try:
        return Recurrence(rule, start, zone)
    except RuleError as error:
        raise serializers.ValidationError({"rrule": str(error)}) from error


def first_occurrence(recurrence: Recurrence, earliest: datetime) -> datetime:
    """The first occurrence at or after `earliest`. Raises ValidationError if there is none."""
    first = recurrence.after(earliest - timedelta(microseconds=1))
    if first is None or first > earliest + MAX_AHEAD:
        raise serializers.ValidationError({"rrule": "This rule never fires."})
    return first


# --- Reminders ------------------------------------------------------------------------------


class LastDeliverySerializer(serializers.ModelSerializer[Delivery]):
    class Meta:
        model = Delivery
        fields = ("id", "channel", "status", "occurrence_at", "sent_at", "is_late", "error")
        read_only_fields = fields


class NoteNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__({"note_id": "There is no such note."})


class ReminderSerializer(serializers.ModelSerializer[Reminder]):
    note_id = serializers.IntegerField(help_text="The id of one of your notes.")
    scheduled_at = FutureDateTimeField(
        help_text="The next time. With a rule: the first time it fires at or after this time."
    )
    channels = CheckboxListField(
        child=serializers.ChoiceField(choices=Channel.choices),
        allow_empty=False,
        max_length=len(Channel),
        required=False,
        help_text="How you are reminded (default: by e-mail).",
    )
    rrule = serializers.CharField(
        max_length=MAX_RULE_CHARACTERS,
        required=False,
        allow_blank=True,
        help_text=f"{RULE_HELP} Empty: once.",
    )
    time_zone = TimeZoneField(
        required=False,
        help_text="IANA name, for the rule and for showing times (default: your time zone).",
    )
    message = MultilineTextField(
        max_length=2000,
        required=False,
        allow_blank=True,
        help_text="Text that is sent with the note's title.",
        style={"base_template": "textarea.html", "rows": 3},
    )
    rule_description = serializers.SerializerMethodField(help_text="The rule in English.")
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
            "rule_description",
            "next",
            "channels",
            "message",
            "last_delivery",
            "error",
            "created_at",
            "updated_at",
        )
        read_only_fields = ("status", "error")

    def get_rule_description(self, reminder: Reminder) -> str | None:
        rule = reminder.valid_recurrence
        return describe(rule) if rule else None

    def get_next(self, reminder: Reminder) -> list[datetime]:
        return reminder.next_times(MAX_NEXT_TIMES)

    def get_last_delivery(self, reminder: Reminder) -> dict[str, Any] | None:
        delivery = latest_delivery(reminder)
        return LastDeliverySerializer(delivery).data if delivery else None

    def validate_note_id(self, note_id: int) -> int:
        """404 for a note that does not exist or belongs to another user."""
        if not Note.objects.for_user(self.context["request"].user).filter(pk=note_id).exists():
            raise NoteNotFound
        return note_id

    def validate_channels(self, channels: list[str]) -> list[str]:
        return list(dict.fromkeys(channels))

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.keys() & {"scheduled_at", "rrule", "time_zone"}:
            return attrs | self._schedule(attrs)
        return attrs

    def create(self, validated_data: dict[str, Any]) -> Reminder:
        return super().create({"channels": [Channel.EMAIL]} | validated_data)

    def _schedule(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """All fields of the schedule. A field that is not given keeps its value."""
        zone = ZoneInfo(attrs.get("time_zone") or self._default_time_zone())
        rule = attrs.get("rrule", self.instance.rrule if self.instance else "")
        start = self._start(attrs.get("scheduled_at"), zone, rule)
        if rule:
            recurrence = parse_recurrence(rule, start, zone)
            scheduled_at = first_occurrence(recurrence, attrs.get("scheduled_at") or timezone.now())
            if self.instance is None or attrs.keys() & {"scheduled_at", "rrule"}:
                start = rule_start(recurrence, scheduled_at)
        else:
            scheduled_at = attrs.get("scheduled_at") or _future(start, zone)
        return {
            "status": Reminder.Status.PENDING,
            "scheduled_at": scheduled_at,
            "start_date": start.date(),
            "start_time": start.time(),
            "time_zone": zone.key,
            "rrule": rule,
            "error": "",
        }

    def _default_time_zone(self) -> str:
        user: User = self.context["request"].user
        return self.instance.time_zone if self.instance else user.time_zone

    def _start(self, given: datetime | None, zone: ZoneInfo, rule: str) -> datetime:
        """The start as a wall-clock time. A reminder that gets another zone keeps its clock time."""
        if given:
            return given.astimezone(zone).replace(tzinfo=None)
        assert self.instance  # noqa: S101 a new reminder has a time
        if self.instance.rrule and rule:
            return datetime.combine(self.instance.start_date, self.instance.start_time)
        return self.instance.scheduled_at.astimezone(self.instance.zone).replace(tzinfo=None)


def _future(start: datetime, zone: ZoneInfo) -> datetime:
    """The wall-clock time as an instant. Raises ValidationError if it is past."""
    scheduled_at = start.replace(tzinfo=zone).astimezone(UTC)
    if scheduled_at < timezone.now():
        message = "That time is already past in this time zone."
        raise serializers.ValidationError({"time_zone": message})
    return scheduled_at


def rule_start(recurrence: Recurrence, first: datetime) -> datetime:
    """Where a rule starts: the day of its first occurrence, at the time of day that was asked for.

    A clock change may have moved the first occurrence. A rule with BYHOUR, say, has a time of day of
    its own.
    """
    local = first.astimezone(recurrence.zone).replace(tzinfo=None)
    if recurrence.parts.keys() & {"BYHOUR", "BYMINUTE", "BYSECOND"}:
        return local
    return datetime.combine(local.date(), recurrence.start.time())


def latest_delivery(reminder: Reminder) -> Delivery | None:
    """The reminder's newest delivery, from the list's prefetch if there is one."""
    if hasattr(reminder, "latest_deliveries"):
        return next(iter(reminder.latest_deliveries), None)
    return reminder.deliveries.order_by("-created_at").first()


class ReminderQuery(serializers.Serializer[Any]):
    """The filters of the list."""

    status = serializers.ChoiceField(
        choices=Reminder.Status.choices, required=False, help_text="Filter by status."
    )
    note_id = serializers.IntegerField(
        min_value=1, max_value=2**63 - 1, required=False, help_text="Filter by note."
    )
    due_before = AwareDateTimeField(required=False, help_text="Only if due before this time.")
    due_after = AwareDateTimeField(required=False, help_text="Only if due after this time.")

    LOOKUPS = {"due_before": "scheduled_at__lt", "due_after": "scheduled_at__gt"}

    def filters(self) -> dict[str, Any]:
        return {self.LOOKUPS.get(name, name): value for name, value in self.validated_data.items()}


class SnoozeSerializer(serializers.Serializer[Any]):
    """One of the two fields is required."""

    until = FutureDateTimeField(required=False, help_text="Snooze until this time.")
    minutes = serializers.IntegerField(
        min_value=1,
        max_value=60 * 24 * 366,
        required=False,
        help_text="Snooze for this many minutes from now.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError("Give either until or minutes.")
        return attrs

    def snooze_until(self) -> datetime:
        if until := self.validated_data.get("until"):
            return until  # type: ignore[no-any-return]
        now = timezone.now().replace(microsecond=0)
        return now + timedelta(minutes=self.validated_data["minutes"])


class PreviewQuery(serializers.Serializer[Any]):
    rrule = serializers.CharField(max_length=MAX_RULE_CHARACTERS, help_text=RULE_HELP)
    time_zone = TimeZoneField(required=False, help_text="IANA name (default: your time zone).")
    scheduled_at = FutureDateTimeField(help_text="The rule first fires at or after this time.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """The fields of Preview. Raises ValidationError for a rule that is invalid or never fires."""
        zone = ZoneInfo(attrs.get("time_zone") or self.context["request"].user.time_zone)
        start = attrs["scheduled_at"].astimezone(zone).replace(tzinfo=None)
        rule = parse_recurrence(attrs["rrule"], start, zone)
        first = first_occurrence(rule, attrs["scheduled_at"])
        times = rule.upcoming(first - timedelta(microseconds=1), MAX_NEXT_TIMES)
        return {"rule_description": describe(rule), "time_zone": zone.key, "next": times}


class Preview(serializers.Serializer[Any]):
    rule_description = serializers.CharField(help_text="The rule in English.")
    time_zone = serializers.CharField()
    next = serializers.ListField(child=ZonedDateTimeField())


# --- Deliveries -----------------------------------------------------------------------------


class AttemptSerializer(serializers.ModelSerializer[DeliveryAttempt]):
    class Meta:
        model = DeliveryAttempt
        fields = ("number", "outcome", "reason", "ended_at")
        read_only_fields = fields


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    log = AttemptSerializer(many=True)
    lateness_seconds = serializers.FloatField(
        help_text="Seconds from the occurrence to the sending; null until it is sent."
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
