"""Due reminders -> delivery rows, and each reminder on to its next time, in one transaction.

Any number of sweeps at once make each delivery once: each takes rows that no other has locked, and
the table's unique constraint stands behind them. A missed sweep is made up for by the next one: a
reminder that recurs is then sent once, marked late, and not once for each time it missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from zoneinfo import ZoneInfo

from django.db import connection, transaction
from django.db.models.functions import Now

from jobs.failpoints import failpoint
from jobs.models import storable
from jobs.runner import publish
from reminders.models import LATE_AFTER, Channel, Delivery, Reminder, ReminderPreferences
from scribes.models import User

logger = logging.getLogger(__name__)

# Reminders in one transaction, and deliveries named in one message.
SWEEP_BATCH_SIZE = 1000


def database_now() -> datetime:
    """Claims are by the database's clock, so what is due is, too."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        (now,) = cursor.fetchone()
    return now  # type: ignore[no-any-return]


def sweep(now: datetime) -> int:
    """Everything that is due at `now`; how many reminders that were."""
    total = 0
    while found := _sweep_batch(now):
        total += found
    if total:
        logger.info("%d reminders were due", total)
    return total


def _sweep_batch(now: datetime) -> int:
    with transaction.atomic():
        due = Reminder.objects.due(now).order_by("scheduled_at")[:SWEEP_BATCH_SIZE]
        reminders = list(
            due.select_related("user__reminder_preferences").select_for_update(
                skip_locked=True, no_key=True, of=("self",)
            )
        )
        deliveries = list(chain.from_iterable(_deliveries(r, now) for r in reminders))
        # A conflict is an occurrence that has its delivery: then that one counts.
        Delivery.objects.bulk_create(deliveries, ignore_conflicts=True)
        _advance(reminders, now)
        publish_deliveries([d for d in deliveries if d.next_attempt_at <= now])
        failpoint("before_sweep_commit")
    failpoint("after_sweep_commit")
    return len(reminders)


def publish_deliveries(deliveries: Iterable[Delivery]) -> None:
    """On commit, in as few messages as there are times SWEEP_BATCH_SIZE."""
    from reminders.tasks import send_deliveries

    ids = [str(delivery.pk) for delivery in deliveries]
    for start in range(0, len(ids), SWEEP_BATCH_SIZE):
        publish(send_deliveries, ids[start : start + SWEEP_BATCH_SIZE], queue="reminders")


# --- What to send, and when -----------------------------------------------------------------


def _deliveries(reminder: Reminder, now: datetime) -> Iterable[Delivery]:
    preferences = _preferences(reminder.user)
    for channel in dict.fromkeys(reminder.channels):
        delivery = Delivery(
            reminder=reminder,
            user=reminder.user,
            occurrence_at=reminder.scheduled_at,
            channel=channel,
            is_late=now - reminder.scheduled_at > LATE_AFTER,
            next_attempt_at=now,
        )
        if preferences and channel != Channel.IN_APP:
            _as_preferred(delivery, preferences, now)
        if delivery.next_attempt_at <= now:
            delivery.dispatched_at = now
        yield delivery


def _preferences(user: User) -> ReminderPreferences | None:
    return getattr(user, "reminder_preferences", None)


def _as_preferred(delivery: Delivery, preferences: ReminderPreferences, now: datetime) -> None:
    """E-mail waits for the daily digest; without one, it and webhooks wait for the quiet hours' end.

    The occurrence stays what it was: only the sending is put off.
    """
    zone = ZoneInfo(delivery.user.time_zone)
    digest = preferences.next_digest(now, zone) if delivery.channel == Channel.EMAIL else None
    if digest:
        delivery.digest, delivery.next_attempt_at = digest
    else:
        delivery.next_attempt_at = preferences.after_quiet_hours(now, zone)


# --- What comes next ------------------------------------------------------------------------


def _advance(reminders: Sequence[Reminder], now: datetime) -> None:
    """pending -> pending at the next time, or sending. The caller holds the rows' locks."""
    recurring = [reminder for reminder in reminders if reminder.rrule]
    for reminder in recurring:
        _set_next(reminder, now)
    Reminder.objects.bulk_update(recurring, ["scheduled_at", "status", "error"])
    once = [reminder.pk for reminder in reminders if not reminder.rrule]
    Reminder.objects.filter(pk__in=once).update(status=Reminder.Status.SENDING, updated_at=Now())


def _set_next(reminder: Reminder, now: datetime) -> None:
    """A rule that cannot be read ends its own reminder, after this time, and nobody else's."""
    try:
        recurrence = reminder.recurrence
        following = recurrence.after(now) if recurrence else None
    except Exception as error:
        logger.exception("Reminder %s cannot go on", reminder.pk)
        reminder.error = storable(f"{type(error).__name__}: {error}")
        following = None
    if following:
        reminder.scheduled_at = following
    else:
        reminder.status = Reminder.Status.SENDING
