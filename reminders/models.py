"""The rows of reminders. The rows are the truth; a message is only a hint.

Every transition is one UPDATE that names the state it starts from. If it changes no row, another
process was first, and the caller stops quietly. Leases expire by the database's clock.

Code that locks both a reminder and its deliveries locks the reminder first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, Value, When
from django.db.models.functions import Now
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from notes.models import Note
from reminders.deliveries import Channel, Delivery, DeliveryAttempt, Notification
from reminders.preferences import ReminderPreferences
from reminders.recurrence import INVALID_SCHEDULE, MAX_RULE_CHARACTERS, Recurrence, zone_or_utc
from scribes.db.deletion import LockingDeleteQuerySet, lock_with_children
from scribes.models import User

# Django and most modules find every model of the app here.
__all__ = [
    "LATE_AFTER",
    "Channel",
    "Delivery",
    "DeliveryAttempt",
    "Notification",
    "Reminder",
    "ReminderPreferences",
    "ReminderQuerySet",
]

# Sweeps run every 15 minutes. An older reminder was held up by an outage.
LATE_AFTER = timedelta(minutes=16)


class ReminderQuerySet(LockingDeleteQuerySet["Reminder"]):
    def for_user(self, user: User) -> ReminderQuerySet:
        return self.filter(user=user)

    def pending(self) -> ReminderQuerySet:
        return self.filter(status=Reminder.Status.PENDING)

    def in_future(self) -> ReminderQuerySet:
        return self.pending().filter(scheduled_at__gt=Now())

    def due(self, now: datetime) -> ReminderQuerySet:
        return self.pending().filter(scheduled_at__lte=now)


class Reminder(models.Model):
    """A user wants to be reminded of a note, once or again and again.

        pending --sweep, with a next time--> pending
        pending --sweep, without a next time--> sending --its deliveries end--> sent | failed
        pending, sending --cancel--> cancelled
        pending, sending, sent, failed --snooze--> pending

    A new time, rule or time zone also makes it pending. A delivery that is being sent while the
    reminder is rescheduled or cancelled may still arrive, but is not retried; pending deliveries are
    cancelled. `start_date` and `start_time` are the start of the rule, as clocks in `time_zone` show
    it. A snooze changes `scheduled_at` only.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE: ClassVar = (Status.PENDING, Status.SENDING)

    # Where db_index is False, another index begins with the same column.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="reminders", db_index=False
    )
    note = models.ForeignKey(Note, models.CASCADE, related_name="reminders")
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    scheduled_at = models.DateTimeField(help_text="The next time, or the last time after its end.")
    start_date = models.DateField()
    start_time = models.TimeField()
    time_zone = models.CharField(max_length=64)
    rrule = models.CharField("rule", max_length=MAX_RULE_CHARACTERS, blank=True, default="")
    channels = ArrayField(models.CharField(max_length=16, choices=Channel))
    message = models.TextField(max_length=2000, blank=True, default="")
    snooze_link = models.CharField(
        max_length=50,
        blank=True,
        default="",
        help_text="The mail link that last snoozed this reminder. It works once.",
    )
    error = models.TextField(blank=True, default="", help_text="Why the rule was given up.")
    request_id = models.CharField(
        max_length=36,
        blank=True,
        default="",
        help_text="The request that created it, for the logs.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ReminderQuerySet.as_manager()

    class Meta:
        db_table = "reminders"
        ordering = ("scheduled_at", "id")
        constraints = [
            models.CheckConstraint(condition=Q(channels__len__gt=0), name="reminder_has_a_channel"),
        ]
        indexes = [
            # For the sweep: ended reminders cost it nothing.
            models.Index(
                fields=["scheduled_at"], condition=Q(status="pending"), name="reminders_due"
            ),
            models.Index(fields=["user", "scheduled_at", "id"], name="reminders_of_user"),
        ]

    def __str__(self) -> str:
        return f"reminder {self.pk} at {self.scheduled_at:%Y-%m-%d %H:%M} UTC"

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            lock_with_children(Reminder.objects.filter(pk=self.pk))
            return super().delete(*args, **kwargs)

    @property
    def zone(self) -> ZoneInfo:
        return zone_or_utc(self.time_zone)

    @property
    def recurrence(self) -> Recurrence | None:
        """The rule; None for a reminder that fires once.

        Raises an error of INVALID_SCHEDULE if the stored rule or time zone is no longer valid, as
        when a zone was removed from the IANA database.
        """
        if not self.rrule:
            return None
        start = datetime.combine(self.start_date, self.start_time)
        return Recurrence(self.rrule, start, ZoneInfo(self.time_zone))

    @property
    def valid_recurrence(self) -> Recurrence | None:
        """The rule; None for a reminder that fires once, or whose rule is no longer valid."""
        try:
            return self.recurrence
        except INVALID_SCHEDULE:
            return None

    @property
    def is_pending(self) -> bool:
        return self.status == self.Status.PENDING

    def next_times(self, limit: int) -> list[datetime]:
        """Up to `limit` next times, in the reminder's time zone; empty unless it is pending."""
        if not self.is_pending:
            return []
        rule = self.valid_recurrence
        later = rule.upcoming(self.scheduled_at, limit - 1) if rule else []
        return [self.scheduled_at.astimezone(self.zone), *later]

    def change(self, **fields: Any) -> None:
        """Write these fields. The caller has locked the row before it read the reminder."""
        with transaction.atomic():
            Reminder.objects.filter(pk=self.pk).update(updated_at=Now(), **fields)
            if "scheduled_at" in fields:
                self._supersede_deliveries()

    def cancel(self) -> bool:
        """pending or sending -> cancelled, with its pending deliveries; whether it was active."""
        active = Reminder.objects.filter(pk=self.pk, status__in=self.ACTIVE)
        with transaction.atomic():
            was_active = active.update(status=self.Status.CANCELLED, updated_at=Now())
            if was_active:
                self._supersede_deliveries()
        return bool(was_active)

    def snooze(self, until: datetime, link: str = "") -> bool:
        """any state but cancelled -> pending until then; whether that was possible.

        Afterwards the reminder follows its rule again. `link` identifies the mail link that snoozes
        it: the same link works only once.
        """
        snoozable = Reminder.objects.filter(pk=self.pk).exclude(status=self.Status.CANCELLED)
        fields: dict[str, Any] = {"status": self.Status.PENDING, "scheduled_at": until}
        if link:
            snoozable, fields = snoozable.exclude(snooze_link=link), fields | {"snooze_link": link}
        with transaction.atomic():
            is_snoozed = snoozable.update(updated_at=Now(), **fields)
            if is_snoozed:
                self._supersede_deliveries()
        return bool(is_snoozed)

    def _supersede_deliveries(self) -> None:
        """Cancel pending deliveries. Those that are being sent get no other attempt."""
        active = Delivery.objects.filter(reminder=self, status__in=Delivery.ACTIVE)
        is_pending = When(status=Delivery.Status.PENDING, then=Value(Delivery.Status.CANCELLED))
        superseded = Delivery.objects.filter(pk__in=active.lock())
        superseded.update(status=Case(is_pending, default=F("status")), is_superseded=True)

    @classmethod
    def close(cls, ids: Sequence[int]) -> None:
        """sending -> sent, or failed, for the reminders whose deliveries have all ended.

        The caller has locked these rows, so of two last deliveries the second one sees the first.
        """
        latest = Delivery.objects.filter(
            reminder=OuterRef("pk"), occurrence_at=OuterRef("scheduled_at")
        )
        has_active = Exists(latest.filter(status__in=Delivery.ACTIVE))
        has_sent = Exists(latest.filter(status=Delivery.Status.SENT))
        status = Case(When(has_sent, then=Value(cls.Status.SENT)), default=Value(cls.Status.FAILED))
        ended = cls.objects.filter(~has_active, pk__in=ids, status=cls.Status.SENDING)
        ended.update(status=status, updated_at=Now())


@receiver(pre_delete, sender=User)
def delete_reminders_first(instance: User, **kwargs: Any) -> None:
    """Lock and delete a user's reminders before Django deletes the rest: see scribes.db.deletion."""
    Reminder.objects.for_user(instance).delete()
