"""Rows for tests, with defaults for all that a test does not care about."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from jobs.models import BackgroundJob
from notes.models import Note
from reminders.models import Channel, Reminder
from scribes.models import User


def make_note(user: User, title: str = "Rest", **fields) -> Note:
    return Note.objects.create(
        user=user, title=title, **({"content": "Beside the still waters."} | fields)
    )


def make_job(user: User, *, minutes_ago: int = 0, **fields) -> BackgroundJob:
    """A job that was created some minutes ago; queued by default."""
    created = timezone.now() - timedelta(minutes=minutes_ago)
    defaults = {
        "job_type": "embedding_regeneration",
        "created_at": created,
        "dispatched_at": created,
    }
    job = BackgroundJob.objects.create(user=user, **(defaults | fields))
    job.refresh_from_db()
    return job


def make_reminder(note: Note, *, due_in: timedelta = timedelta(seconds=-1), **fields) -> Reminder:
    """A reminder as the API stores it, but due in the past by default."""
    due = (timezone.now() + due_in).replace(microsecond=0)
    return Reminder.objects.create(note=note, **(_reminder_fields(note, due) | fields))


def make_reminders(
    note: Note, number: int, *, over: timedelta = timedelta(minutes=10), **fields
) -> None:
    """`number` due reminders, spread over the time until now."""
    now = timezone.now().replace(microsecond=0)
    shared = _reminder_fields(note, now) | fields
    Reminder.objects.bulk_create(
        Reminder(note=note, **(shared | {"scheduled_at": now - over * n / number}))
        for n in range(number)
    )


def _reminder_fields(note: Note, due: Any) -> dict[str, Any]:
    start = due.replace(tzinfo=None)
    return {
        "user": note.user,
        "scheduled_at": due,
        "start_date": start.date(),
        "start_time": start.time(),
        "time_zone": "UTC",
        "channels": [Channel.EMAIL],
    }
