"""Shortcuts around the sweep and its deliveries, run in the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from reminders.dispatch import database_now
from reminders.models import Delivery, Reminder, ReminderPreferences
from reminders.sweep import sweep as sweep_at
from reminders.tasks import send_deliveries

Post = Callable[..., dict[str, Any]]
"""The fixture `create`: posts a reminder with these fields, and returns the answer."""
Prefer = Callable[..., ReminderPreferences]
"""The fixture `prefer`: stores preferences with these fields."""


def sweep() -> int:
    return sweep_at(database_now())


def send() -> None:
    """Send all that is ready, as a worker does when it gets the sweep's message."""
    send_deliveries([str(pk) for pk in Delivery.objects.ready().values_list("pk", flat=True)])


def deliver(reminder: Reminder) -> Delivery:
    """Sweep and send; the reminder's newest delivery afterwards."""
    sweep()
    send()
    reminder.refresh_from_db()
    return reminder.deliveries.latest("occurrence_at")


def retry(delivery: Delivery) -> Delivery:
    """Make the next attempt now, whenever it is due."""
    Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=timezone.now())
    send_deliveries([str(delivery.pk)])
    delivery.refresh_from_db()
    return delivery


def outcomes(delivery: Delivery) -> list[str]:
    return list(delivery.log.values_list("outcome", flat=True))


def in_hours(hours: float) -> str:
    return (timezone.now() + timedelta(hours=hours)).isoformat()


def local_time(moment: str) -> datetime:
    """The wall-clock time of an ISO time with an offset."""
    return datetime.fromisoformat(moment).replace(tzinfo=None)
