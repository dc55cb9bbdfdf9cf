"""The sweep: due reminders -> deliveries, next times, and messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

from django.conf import settings
from django.db import connection, transaction

from bench.measure import Line, at_least, rate, seconds
from notes.models import Note
from reminders.dispatch import database_now
from reminders.models import LATE_AFTER, Channel, Delivery, Reminder
from reminders.sweep import sweep
from scribes.messaging.broker import queue_length, redis_client
from scribes.messaging.publishing import publish
from scribes.models import User

REMINDERS = 10_000
# The loop reads the same table. This number is enough to know its rate.
LOOP_REMINDERS = 1000
ROUNDS = 5
MAX_MESSAGES = 20
QUEUE = "reminders"
LOOP = f"a loop: one transaction and one message per reminder, {LOOP_REMINDERS:,} reminders"


def run() -> Iterator[Line]:
    note = Note.objects.create(user=User.objects.create_user("alice@example.com"), title="Rest")
    yield measure_sweep(note, "", f"sweep {REMINDERS:,} due reminders")
    rule = "FREQ=WEEKLY;BYDAY=MO,TH"
    yield measure_sweep(note, rule, f"sweep {REMINDERS:,} due reminders with a rule")


def measure_sweep(note: Note, rule: str, title: str) -> Line:
    Reminder.objects.all().delete()
    make_reminders(note, rule)
    timed(sweep_all), timed(loop)  # these do not count
    times = [(timed(sweep_all), timed(loop)) for _ in range(ROUNDS)]
    ours, theirs = (median(column) for column in zip(*times, strict=True))
    our_rate, loop_rate = REMINDERS / ours, LOOP_REMINDERS / theirs
    shown = (rate(our_rate, "reminders"), LOOP, rate(loop_rate, "reminders"))
    return at_least(20, title, *shown, our_rate / loop_rate)


def make_reminders(note: Note, rule: str) -> None:
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
            channels=[Channel.EMAIL],
        )
        for _ in range(REMINDERS)
    )


def timed(work: Callable[[], None]) -> float:
    """The seconds of this work while all reminders are due, and the tables are vacuumed."""
    redis_client(timeout_seconds=5).delete(f"{settings.REDIS_KEY_PREFIX}{QUEUE}")
    Delivery.objects.all().delete()
    due = database_now() - timedelta(minutes=1)
    Reminder.objects.update(status=Reminder.Status.PENDING, scheduled_at=due)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE reminders, reminder_deliveries")
    return seconds(work)


def sweep_all() -> None:
    assert sweep(database_now()) == REMINDERS
    assert queue_length(QUEUE) <= MAX_MESSAGES


# --- The peer -------------------------------------------------------------------------------


def loop() -> None:
    """The straightforward way: one reminder after the other, each in its own transaction."""
    now = database_now()
    due = Reminder.objects.due(now).order_by("scheduled_at").select_related("user")
    for reminder in due[:LOOP_REMINDERS]:
        with transaction.atomic():
            create_deliveries(reminder, now)
            advance(reminder, now)


def create_deliveries(reminder: Reminder, now: datetime) -> None:
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
        label = "Send reminders: one delivery"
        publish("reminders.tasks.send_deliveries", [str(delivery.pk)], queue=QUEUE, label=label)


def advance(reminder: Reminder, now: datetime) -> None:
    recurrence = reminder.recurrence
    next_time = recurrence.after(now) if recurrence else None
    if next_time:
        reminder.scheduled_at = next_time
    else:
        reminder.status = Reminder.Status.SENDING
    reminder.save(update_fields=["scheduled_at", "status", "updated_at"])
