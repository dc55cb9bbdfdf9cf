"""Due reminders -> delivery rows, and each reminder on to its next time, in one transaction.

Any number of sweeps at once make each delivery once: each takes rows that no other has locked, and
the table's unique constraint stands behind them. At its end a sweep waits for what is locked still,
so that a reminder which is being changed as it is due does not come a quarter late. A missed sweep is made up for by the next one: a
reminder that recurs is then sent once, marked late, and not once for each time it missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now

from jobs.failpoints import failpoint
from jobs.models import storable
from jobs.runner import publish
from reminders.models import (
    LATE_AFTER,
    Channel,
    Reminder,
    ReminderPreferences,
    zone_or_utc,
)

logger = logging.getLogger(__name__)

# Reminders in one transaction, and deliveries named in one message.
SWEEP_BATCH_SIZE = 1000
# Of those, how many Flower names.
MAX_NAMED = 3
# Of a reminder. The rest is not needed here, and takes its time.
READ_BY_SWEEPS = (
    "user_id",
    "channels",
    "scheduled_at",
    "start_date",
    "start_time",
    "time_zone",
    "rrule",
)


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
        due = Reminder.objects.due(now).order_by("scheduled_at").only(*READ_BY_SWEEPS)[:size]
        reminders = list(due.select_for_update(skip_locked=skip_locked, no_key=True))
        if not reminders:
            return 0
        planned = list(_planned(reminders, now))
        made = _make(planned, now)
        ending = _advance(reminders, now)
        if len(made) < len(planned):
            # Some were there already, and may have ended already.
            Reminder.close(ending)
        publish_deliveries(pk for pk, is_ready in made if is_ready)
        failpoint("before_sweep_commit")
    failpoint("after_sweep_commit")
    return len(reminders)


def publish_deliveries(ids: Iterable[UUID]) -> None:
    """On commit, in as few messages as there are times SWEEP_BATCH_SIZE."""
    from reminders.tasks import send_deliveries

    texts = [str(pk) for pk in ids]
    for start in range(0, len(texts), SWEEP_BATCH_SIZE):
        some = texts[start : start + SWEEP_BATCH_SIZE]
        publish(send_deliveries, some, queue="reminders", says=_says(some))


def _says(delivery_ids: Sequence[str]) -> str:
    """For Flower, so it names deliveries only. A message has up to SWEEP_BATCH_SIZE of them."""
    named = ", ".join(pk[:8] for pk in delivery_ids[:MAX_NAMED])
    more = len(delivery_ids) - MAX_NAMED
    return f"send-reminders delivery {named}" + (f" and {more} more" if more > 0 else "")


# --- What to send, and when -----------------------------------------------------------------


class Planned(NamedTuple):
    """A delivery to be made."""

    reminder_id: int
    channel: str
    next_attempt_at: datetime
    digest: UUID | None


def _planned(reminders: Sequence[Reminder], now: datetime) -> Iterator[Planned]:
    preferences = _preferences(reminders)
    for reminder in reminders:
        own = preferences.get(reminder.user_id)
        for channel in dict.fromkeys(reminder.channels):
            moment, digest = _as_preferred(channel, reminder.scheduled_at, own, now)
            yield Planned(reminder.pk, channel, moment, digest)


def _preferences(reminders: Sequence[Reminder]) -> dict[int, ReminderPreferences]:
    """By user, of those who have any; with a join, each row would bring its user along."""
    users = {reminder.user_id for reminder in reminders}
    found = ReminderPreferences.objects.filter(user__in=users).select_related("user")
    return {preferences.user_id: preferences for preferences in found}


def _as_preferred(
    channel: str, occurrence_at: datetime, preferences: ReminderPreferences | None, now: datetime
) -> tuple[datetime, UUID | None]:
    """When it is sent, and in which digest.

    E-mail waits for the daily digest; without one, it and webhooks wait for the quiet hours' end.
    The occurrence stays what it was: only the sending is put off.
    """
    if preferences is None or channel == Channel.IN_APP:
        return now, None
    zone = zone_or_utc(preferences.user.time_zone)
    # By when it was due: this morning's digest is not to miss what this sweep has just found.
    since = max(occurrence_at - timedelta(seconds=1), now - LATE_AFTER)
    if channel == Channel.EMAIL and (digest := preferences.next_digest(since, zone)):
        key, goes_out = digest
        return goes_out, key
    return preferences.after_quiet_hours(now, zone), None


# An occurrence that has its delivery keeps that one.
MAKE_DELIVERIES = """
INSERT INTO reminder_deliveries (id, reminder_id, user_id, occurrence_at, channel, digest,
    next_attempt_at, dispatched_at, is_late, status, is_withdrawn, attempts, claim_seq, error,
    created_at)
SELECT gen_random_uuid(), reminders.id, user_id, scheduled_at, planned.channel, planned.digest,
    planned.at, CASE WHEN planned.at <= %(now)s THEN %(now)s END,
    %(now)s - scheduled_at > %(late_after)s, 'pending', false, 0, 0, '', now()
FROM unnest(%(ids)s::bigint[], %(channels)s::text[], %(times)s::timestamptz[], %(digests)s::uuid[])
    AS planned (reminder_id, channel, at, digest)
JOIN reminders ON reminders.id = planned.reminder_id
ON CONFLICT DO NOTHING
RETURNING id, next_attempt_at <= %(now)s
"""


def _make(planned: Sequence[Planned], now: datetime) -> list[tuple[UUID, bool]]:
    """The key of each delivery that was not there yet, and whether it is to be sent at once.

    One statement with an array for each column; bulk_create prepares each field of each row, which
    takes half as long as the whole sweep.
    """
    ids, channels, times, digests = map(list, zip(*planned, strict=True))
    columns = {"ids": ids, "channels": channels, "times": times, "digests": digests}
    parameters: dict[str, Any] = {**columns, "now": now, "late_after": LATE_AFTER}
    with connection.cursor() as cursor:
        cursor.execute(MAKE_DELIVERIES, parameters)
        made: list[tuple[UUID, bool]] = cursor.fetchall()
    return made


# --- What comes next ------------------------------------------------------------------------


def _advance(reminders: Sequence[Reminder], now: datetime) -> list[int]:
    """pending -> pending at the next time, or sending; the keys of the latter. The caller holds the
    rows' locks."""
    following = {reminder.pk: _following(reminder, now) for reminder in reminders}
    _move({pk: moment for pk, moment in following.items() if moment})
    ending = [pk for pk, moment in following.items() if moment is None]
    Reminder.objects.filter(pk__in=ending).update(status=Reminder.Status.SENDING, updated_at=Now())
    return ending


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
