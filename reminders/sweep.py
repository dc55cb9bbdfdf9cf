"""Due reminders -> delivery rows, and each reminder on to its next time, in one transaction.

Any number of sweeps at once make each delivery once: each takes rows that no other has locked, and
the table's unique constraint stands behind them. At its end a sweep waits for what is locked still,
so that a reminder which is being changed as it is due does not come a quarter late. A missed sweep is made up for by the next one: a
reminder that recurs is then sent once, marked late, and not once for each time it missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now

from jobs.failpoints import failpoint
from jobs.models import storable
from jobs.runner import publish
from reminders.models import (
    LATE_AFTER,
    Channel,
    Delivery,
    Reminder,
    ReminderPreferences,
    zone_or_utc,
)

logger = logging.getLogger(__name__)

# Reminders in one transaction, and deliveries named in one message.
SWEEP_BATCH_SIZE = 1000
# Of those, how many Flower names.
MAX_NAMED = 3


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
    total += _sweep_locked(now)
    if total:
        logger.info("%d reminders were due", total)
    return total


def _sweep_locked(now: datetime) -> int:
    """What somebody is changing just now, one by one: while we wait for it, nobody waits for us."""
    total = 0
    try:
        while _sweep_batch(now, 1, skip_locked=False):
            total += 1
    except OperationalError as error:
        if not connection.is_usable():
            raise
        logger.warning("Reminders that are due are locked; the next sweep takes them: %s", error)
    return total


def _sweep_batch(now: datetime, size: int = SWEEP_BATCH_SIZE, *, skip_locked: bool = True) -> int:
    with transaction.atomic():
        due = Reminder.objects.due(now).order_by("scheduled_at")[:size]
        reminders = list(due.select_for_update(skip_locked=skip_locked, no_key=True))
        preferences = _preferences(reminders)
        deliveries = [
            delivery
            for reminder in reminders
            for delivery in _deliveries(reminder, preferences.get(reminder.user_id), now)
        ]
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
        some = ids[start : start + SWEEP_BATCH_SIZE]
        publish(send_deliveries, some, queue="reminders", says=_says(some))


def _says(delivery_ids: Sequence[str]) -> str:
    """For Flower, so it names deliveries only. A message has up to SWEEP_BATCH_SIZE of them."""
    named = ", ".join(pk[:8] for pk in delivery_ids[:MAX_NAMED])
    more = len(delivery_ids) - MAX_NAMED
    return f"send-reminders delivery {named}" + (f" and {more} more" if more > 0 else "")


# --- What to send, and when -----------------------------------------------------------------


def _preferences(reminders: Sequence[Reminder]) -> dict[int, ReminderPreferences]:
    """By user, of those who have any; with a join, each row would bring its user along."""
    users = {reminder.user_id for reminder in reminders}
    found = ReminderPreferences.objects.filter(user__in=users).select_related("user")
    return {preferences.user_id: preferences for preferences in found}


def _deliveries(
    reminder: Reminder, preferences: ReminderPreferences | None, now: datetime
) -> Iterable[Delivery]:
    for channel in dict.fromkeys(reminder.channels):
        delivery = Delivery(
            reminder_id=reminder.pk,
            user_id=reminder.user_id,
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


def _as_preferred(delivery: Delivery, preferences: ReminderPreferences, now: datetime) -> None:
    """E-mail waits for the daily digest; without one, it and webhooks wait for the quiet hours' end.

    The occurrence stays what it was: only the sending is put off.
    """
    zone = zone_or_utc(preferences.user.time_zone)
    # By when it was due: this morning's digest is not to miss what this sweep has just found.
    since = max(delivery.occurrence_at - timedelta(seconds=1), now - LATE_AFTER)
    digest = preferences.next_digest(since, zone) if delivery.channel == Channel.EMAIL else None
    if digest:
        delivery.digest, delivery.next_attempt_at = digest
    else:
        delivery.next_attempt_at = preferences.after_quiet_hours(now, zone)


# --- What comes next ------------------------------------------------------------------------


def _advance(reminders: Sequence[Reminder], now: datetime) -> None:
    """pending -> pending at the next time, or sending. The caller holds the rows' locks."""
    following = {reminder.pk: _following(reminder, now) for reminder in reminders}
    _move({pk: moment for pk, moment in following.items() if moment})
    ending = [pk for pk, moment in following.items() if moment is None]
    Reminder.objects.filter(pk__in=ending).update(status=Reminder.Status.SENDING, updated_at=Now())
    # Where the deliveries were there already, they may have ended already.
    Reminder.close(ending)


def _following(reminder: Reminder, now: datetime) -> datetime | None:
    """Its next time, if there is one. A rule that cannot be read ends its own reminder, after this
    time, and nobody else's."""
    try:
        recurrence = reminder.recurrence
        return recurrence.after(now) if recurrence else None
    except Exception as error:
        # Whatever it is: it must not keep everybody else's from being sent.
        logger.exception("%s cannot go on", reminder)
        reason = storable(f"{type(error).__name__}: {error}")
        Reminder.objects.filter(pk=reminder.pk).update(error=reason)
        return None


def _move(times: dict[int, datetime]) -> None:
    """One statement with two arrays; with bulk_update, a CASE for each row, the whole sweep takes
    twice as long."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE reminders SET scheduled_at = next.at, updated_at = now()"
            " FROM unnest(%s::bigint[], %s::timestamptz[]) AS next (id, at)"
            " WHERE reminders.id = next.id",
            [list(times.keys()), list(times.values())],
        )
