"""The sweep: create the deliveries of due reminders, and move each reminder to its next time.

Both happen in one transaction. Any number of concurrent sweeps create each delivery once: a sweep
takes only rows that no other process has locked, and the table has a unique constraint. At its end
a sweep waits for locked rows, so a reminder that is being changed at its due time is not sent a
quarter of an hour late. The next sweep makes up for a missed one: a recurring reminder is then sent
once and marked as late, not once for each time it missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now

from reminders.channels import channel_spec
from reminders.dispatch import publish_deliveries
from reminders.models import LATE_AFTER, Reminder, ReminderPreferences
from reminders.recurrence import zone_or_utc
from scribes.messaging.failpoints import failpoint
from scribes.messaging.sanitize import strip_unstorable

logger = logging.getLogger(__name__)

FAILPOINTS = ("before_sweep_commit", "after_sweep_commit")

# Reminders in one transaction.
SWEEP_BATCH_SIZE = 1000
# The columns of a reminder that the sweep reads. Reading the others would cost time.
SWEEP_COLUMNS = (
    "user_id",
    "channels",
    "scheduled_at",
    "start_date",
    "start_time",
    "time_zone",
    "rrule",
)


def sweep(now: datetime) -> int:
    """Process all reminders that are due at `now`; return their number."""
    total = 0
    while found := _sweep_batch(now):
        total += found
    total += _sweep_locked(now)
    if total:
        logger.info("%d reminders were due", total)
    return total


def _sweep_locked(now: datetime) -> int:
    """Process due reminders that are locked, one by one, so that nobody waits for us meanwhile."""
    total = 0
    try:
        while _sweep_batch(now, 1, skip_locked=False):
            total += 1
    except OperationalError as error:
        if not connection.is_usable():
            raise
        logger.warning("Due reminders are locked, and left to the next sweep: %s", error)
    return total


def _sweep_batch(now: datetime, size: int = SWEEP_BATCH_SIZE, *, skip_locked: bool = True) -> int:
    with transaction.atomic():
        due = Reminder.objects.due(now).order_by("scheduled_at").only(*SWEEP_COLUMNS)[:size]
        reminders = list(due.select_for_update(skip_locked=skip_locked, no_key=True))
        if not reminders:
            return 0
        plans = list(_plan_deliveries(reminders, now))
        created = _create_deliveries(plans, now)
        ending = _advance(reminders, now)
        if len(created) < len(plans):
            # Some deliveries existed already, and may have ended already.
            Reminder.close(ending)
        publish_deliveries(pk for pk, is_ready in created if is_ready)
        failpoint("before_sweep_commit")
    failpoint("after_sweep_commit")
    return len(reminders)


# --- What to send, and when -----------------------------------------------------------------


class DeliveryPlan(NamedTuple):
    """A delivery that is about to be created."""

    reminder_id: int
    channel: str
    next_attempt_at: datetime
    digest: UUID | None


def _plan_deliveries(reminders: Sequence[Reminder], now: datetime) -> Iterator[DeliveryPlan]:
    preferences = _preferences_by_user(reminders)
    for reminder in reminders:
        own = preferences.get(reminder.user_id)
        for channel in dict.fromkeys(reminder.channels):
            send_at, digest = apply_preferences(channel, reminder.scheduled_at, own, now)
            yield DeliveryPlan(reminder.pk, channel, send_at, digest)


def _preferences_by_user(reminders: Sequence[Reminder]) -> dict[int, ReminderPreferences]:
    """The preferences of these reminders' users. A join would read the user with every reminder."""
    users = {reminder.user_id for reminder in reminders}
    found = ReminderPreferences.objects.filter(user__in=users).select_related("user")
    return {preferences.user_id: preferences for preferences in found}


def apply_preferences(
    channel: str, occurrence_at: datetime, preferences: ReminderPreferences | None, now: datetime
) -> tuple[datetime, UUID | None]:
    """When a delivery is sent, and in which digest.

    The channel decides whether the daily digest and the quiet hours apply. They delay the sending;
    the occurrence stays the same.
    """
    if preferences is None:
        return now, None
    spec, zone = channel_spec(channel), zone_or_utc(preferences.user.time_zone)
    # From the due time on, so that a reminder this sweep found late still joins this morning's digest.
    since = max(occurrence_at - timedelta(seconds=1), now - LATE_AFTER)
    if spec.joins_digest and (digest := preferences.next_digest(since, zone)):
        digest_id, send_at = digest
        return send_at, digest_id
    send_at = preferences.after_quiet_hours(now, zone) if spec.waits_for_quiet_hours else now
    return send_at, None


# An occurrence that already has a delivery over this channel keeps it.
INSERT_DELIVERIES = """
INSERT INTO reminder_deliveries (id, reminder_id, user_id, occurrence_at, channel, digest,
    next_attempt_at, dispatched_at, is_late, status, is_superseded, attempts, claim_seq, error,
    created_at)
SELECT gen_random_uuid(), reminders.id, user_id, scheduled_at, plan.channel, plan.digest,
    plan.send_at, CASE WHEN plan.send_at <= %(now)s THEN %(now)s END,
    %(now)s - scheduled_at > %(late_after)s, 'pending', false, 0, 0, '', now()
FROM unnest(%(ids)s::bigint[], %(channels)s::text[], %(times)s::timestamptz[], %(digests)s::uuid[])
    AS plan (reminder_id, channel, send_at, digest)
JOIN reminders ON reminders.id = plan.reminder_id
ON CONFLICT DO NOTHING
RETURNING id, next_attempt_at <= %(now)s
"""


def _create_deliveries(plans: Sequence[DeliveryPlan], now: datetime) -> list[tuple[UUID, bool]]:
    """Insert the deliveries; return the id of each new one and whether it is ready to be sent.

    One statement with an array per column. bulk_create prepares each field of each row, which takes
    half as long as the whole sweep.
    """
    ids, channels, times, digests = map(list, zip(*plans, strict=True))
    columns = {"ids": ids, "channels": channels, "times": times, "digests": digests}
    parameters: dict[str, Any] = {**columns, "now": now, "late_after": LATE_AFTER}
    with connection.cursor() as cursor:
        cursor.execute(INSERT_DELIVERIES, parameters)
        created: list[tuple[UUID, bool]] = cursor.fetchall()
    return created


# --- What comes next ------------------------------------------------------------------------


def _advance(reminders: Sequence[Reminder], now: datetime) -> list[int]:
    """pending -> pending at the next time, or sending; return the keys of the latter.

    The caller has locked the rows.
    """
    next_times = {reminder.pk: _next_occurrence(reminder, now) for reminder in reminders}
    _reschedule({pk: next_time for pk, next_time in next_times.items() if next_time})
    ending = [pk for pk, next_time in next_times.items() if next_time is None]
    Reminder.objects.filter(pk__in=ending).update(status=Reminder.Status.SENDING, updated_at=Now())
    return ending


def _next_occurrence(reminder: Reminder, now: datetime) -> datetime | None:
    """The reminder's next time, if it has one. An invalid rule ends only its own reminder."""
    try:
        recurrence = reminder.recurrence
        return recurrence.after(now) if recurrence else None
    except Exception as error:
        # Any error: it must not stop the other reminders.
        logger.exception("The rule of %s has no next time", reminder)
        _record_error(reminder, error)
        return None


def _record_error(reminder: Reminder, error: Exception) -> None:
    reason = strip_unstorable(f"{type(error).__name__}: {error}")
    Reminder.objects.filter(pk=reminder.pk).update(error=reason)


def _reschedule(next_times: dict[int, datetime]) -> None:
    """Write the next times in one statement with two arrays.

    bulk_update writes a CASE for each row, with which the whole sweep takes twice as long.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE reminders SET scheduled_at = next.at, updated_at = now()"
            " FROM unnest(%s::bigint[], %s::timestamptz[]) AS next (id, at)"
            " WHERE reminders.id = next.id",
            [list(next_times.keys()), list(next_times.values())],
        )
