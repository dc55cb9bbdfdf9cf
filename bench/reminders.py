"""Due reminders -> deliveries, next times and messages to the workers that send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

from django.db import connection, transaction

from bench.measure import Line, at_least, rate, seconds
from jobs.broker import queue_length
from jobs.runner import publish
from notes.models import Note
from reminders.models import LATE_AFTER, Delivery, Reminder
from reminders.sweep import database_now, sweep
from reminders.tasks import send_deliveries
from scribes.models import User
from tests.conftest import forget_queues

REMINDERS = 10_000
# The loop takes them from the same table. So many are enough to know its rate.
BY_THE_LOOP = 1000
ROUNDS = 5
MAX_MESSAGES = 20


def run() -> Iterator[Line]:
    note = Note.objects.create(user=User.objects.create_user("alice@example.com"), title="Rest")
    yield swept(note, "", f"{REMINDERS:,} due reminders become deliveries")
    yield swept(note, "FREQ=WEEKLY;BYDAY=MO,TH", f"{REMINDERS:,} due reminders with a rule")


def swept(note: Note, rule: str, what: str) -> Line:
    Reminder.objects.all().delete()
    make(note, rule)
    once(sweep_all), once(loop)
    times = [(once(sweep_all), once(loop)) for _ in range(ROUNDS)]
    ours, peer = (median(column) for column in zip(*times, strict=True))
    own, theirs = REMINDERS / ours, BY_THE_LOOP / peer
    against = f"a transaction and a message for each, {BY_THE_LOOP:,} of them"
    shown = (rate(own, "reminders"), against, rate(theirs, "reminders"))
    return at_least(20, what, *shown, own / theirs)


def make(note: Note, rule: str) -> None:
    start = datetime(2026, 1, 1, 19, tzinfo=UTC)
    Reminder.objects.bulk_create(
        Reminder(
            user=note.user,
            note=note,
            scheduled_at=start,
            start_date=start.date(),
            start_time=start.time(),
            time_zone="Europe/Berlin",
            rrule=rule,
        )
        for _ in range(REMINDERS)
    )


def once(work: Callable[[], None]) -> float:
    """Seconds that it takes while all of them are due, and the table is as new."""
    forget_queues()
    Delivery.objects.all().delete()
    due = database_now() - timedelta(minutes=1)
    Reminder.objects.update(status=Reminder.Status.PENDING, scheduled_at=due)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE reminders, reminder_deliveries")
    return seconds(work)


def sweep_all() -> None:
    assert sweep(database_now()) == REMINDERS
    assert queue_length("reminders") <= MAX_MESSAGES


# --- The peer -------------------------------------------------------------------------------


def loop() -> None:
    """As one writes it first: each reminder by itself, whole or not at all."""
    now = database_now()
    due = Reminder.objects.due(now).order_by("scheduled_at").select_related("user")
    for reminder in due[:BY_THE_LOOP]:
        with transaction.atomic():
            send_one(reminder, now)


def send_one(reminder: Reminder, now: datetime) -> None:
    for channel in reminder.channels:
        delivery = Delivery.objects.create(
            reminder=reminder,
            user=reminder.user,
            occurrence_at=reminder.scheduled_at,
            channel=channel,
            is_late=now - reminder.scheduled_at > LATE_AFTER,
            next_attempt_at=now,
            dispatched_at=now,
        )
        publish(send_deliveries, [str(delivery.pk)], queue="reminders", says="send")
    recurrence = reminder.recurrence
    following = recurrence.after(now) if recurrence else None
    if following:
        reminder.scheduled_at = following
    else:
        reminder.status = Reminder.Status.SENDING
    reminder.save(update_fields=["scheduled_at", "status", "updated_at"])
