"""Send a delivery: claim it, send it outside of any transaction, and record the outcome.

At least once, and usually once: one process at a time has the claim, and the outcome is recorded at
once. If the process dies in between, the delivery is sent again after its lease, with the same
Message-ID or webhook-id, by which the receiver can recognise it. SMTP allows no more than that. An
in-app notification is a row and exists exactly once.

Not promised: the order of deliveries; and that quiet hours hold back what is already being sent.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now

from reminders.channels import (
    MAX_RETRY_DELAY,
    PermanentError,
    TransientError,
    Unreachable,
    channel_spec,
)
from reminders.dispatch import database_now, dispatch_deliveries
from reminders.mail import Mailer
from reminders.models import Delivery, DeliveryAttempt, Reminder
from scribes.messaging.failpoints import failpoint
from scribes.monitoring.logging import log_context

logger = logging.getLogger(__name__)

FAILPOINTS = ("after_delivery_claim", "after_send", "after_delivery_commit")

Outcome = DeliveryAttempt.Outcome

# Deliveries of a message that are left after this time get a new message, and other work gets its turn.
# With the delivery that is being sent by then, a slow server keeps a process for about 10 s. The time
# is also below JOB_REPUBLISH_SECONDS, after which a message counts as lost.
SEND_SECONDS = 5
# Each delay is three times the previous one, up to MAX_RETRY_DELAY: about four days in all.
INITIAL_RETRY_DELAY = timedelta(minutes=1)
MAX_ATTEMPTS = 12


# --- Batches --------------------------------------------------------------------------------


def send_batch(delivery_ids: Sequence[UUID]) -> None:
    """Send these deliveries one after the other. Those left after SEND_SECONDS get a new message."""
    deadline = time.monotonic() + SEND_SECONDS
    waiting = deque(_in_batch_order(delivery_ids))
    unreachable: set[tuple[str, int | None]] = set()
    with Mailer() as mailer:
        while waiting and time.monotonic() < deadline:
            delivery = waiting.popleft()
            server = _server_of(delivery)
            # Deliveries to an unreachable server stay pending and get a message later.
            if server not in unreachable and not _send_safely(delivery, mailer):
                unreachable.add(server)
    dispatch_deliveries(waiting)


def _in_batch_order(delivery_ids: Sequence[UUID]) -> list[Delivery]:
    ready = Delivery.objects.ready().filter(pk__in=delivery_ids)
    rows = ready.order_by("occurrence_at", "pk").only("channel", "digest", "user")
    return sorted(rows, key=lambda delivery: channel_spec(delivery.channel).batch_order)


def _server_of(delivery: Delivery) -> tuple[str, int | None]:
    """The server that gets it: the channel, and the user if each user has a server of their own."""
    has_one_server = channel_spec(delivery.channel).has_one_server
    return delivery.channel, None if has_one_server else delivery.user_id


def _send_safely(delivery: Delivery, mailer: Mailer) -> bool:
    """Send one delivery. False only if its server could not be reached.

    A delivery that cannot be claimed or recorded, as when its reminder is being deleted, does not
    end the batch: its lease expires.
    """
    try:
        return claim_and_send(delivery, mailer)
    except DatabaseError:
        if not connection.is_usable():
            raise
        logger.exception("Delivery %s could not be recorded", delivery.pk)
        return True


# --- One delivery ---------------------------------------------------------------------------


def claim_and_send(delivery: Delivery, mailer: Mailer) -> bool:
    """Claim -> send -> record. False only if the server could not be reached."""
    deliveries = Delivery.claim(delivery)
    if not deliveries:
        return True
    failpoint("after_delivery_claim")
    first = deliveries[0]
    with log_context(delivery=first.pk, request_id=first.reminder.request_id):
        return _send_claimed(deliveries, mailer)


def _send_claimed(deliveries: list[Delivery], mailer: Mailer) -> bool:
    try:
        _send(deliveries, mailer)
    except TransientError as error:
        _postpone(deliveries, str(error), error.retry_after)
        return not isinstance(error, Unreachable)
    except PermanentError as error:
        record_outcome(deliveries, Outcome.FAILED, str(error), status=Delivery.Status.FAILED)
    except Exception as error:
        logger.exception("%s could not be sent", deliveries[0])
        _postpone(deliveries, f"{type(error).__name__}: {error}")
    else:
        failpoint("after_send")
        record_outcome(deliveries, Outcome.SENT, "", status=Delivery.Status.SENT, sent_at=Now())
    return True


def _send(deliveries: list[Delivery], mailer: Mailer) -> None:
    """Raises TransientError and PermanentError."""
    first = deliveries[0]
    if not first.user.is_active:
        raise PermanentError("The account is disabled.")
    channel_spec(first.channel).send(deliveries, mailer)


# --- Outcomes -------------------------------------------------------------------------------


def record_outcome(
    deliveries: list[Delivery],
    outcome: DeliveryAttempt.Outcome,
    reason: str,
    *,
    status: Any,
    **fields: object,
) -> None:
    """Record the outcome of each delivery whose lease we hold, and close reminders that ended."""
    reminder_ids = sorted({delivery.reminder_id for delivery in deliveries})
    with transaction.atomic():
        _lock_reminders(reminder_ids)
        recorded = [d.record(outcome, reason, status=status, **fields) for d in deliveries]
        Reminder.close(reminder_ids)
    failpoint("after_delivery_commit")
    _log_outcome(deliveries[0], outcome, reason, is_recorded=all(recorded))


def _lock_reminders(reminder_ids: Sequence[int]) -> None:
    rows = Reminder.objects.filter(pk__in=reminder_ids).order_by("pk")
    list(rows.select_for_update(no_key=True).values_list("pk"))


def _log_outcome(
    delivery: Delivery, outcome: DeliveryAttempt.Outcome, reason: str, *, is_recorded: bool
) -> None:
    if not is_recorded:
        logger.info("%s: the lease was lost, so no outcome is recorded", delivery)
    elif outcome == Outcome.SENT:
        logger.info("%s sent", delivery)
    else:
        logger.warning("%s %s: %s", delivery, outcome.label, reason)


def _postpone(
    deliveries: list[Delivery], reason: str, retry_after: timedelta | None = None
) -> None:
    """sending -> pending until the next attempt; -> failed after MAX_ATTEMPTS."""
    attempts = max(delivery.attempts for delivery in deliveries)
    if attempts >= MAX_ATTEMPTS:
        reason = f"Given up after {attempts} attempts: {reason}"
        record_outcome(deliveries, Outcome.FAILED, reason, status=Delivery.Status.FAILED)
        return
    # The same time for all, so that a digest stays together.
    next_attempt_at = database_now() + max(backoff(attempts), retry_after or timedelta())
    record_outcome(
        deliveries,
        Outcome.POSTPONED,
        reason,
        status=Delivery.RETRY_STATUS,
        next_attempt_at=next_attempt_at,
        dispatched_at=None,
    )


def backoff(attempts: int) -> timedelta:
    """The delay before the next attempt: 30 to 60 s after the first, then three times as long each
    time, up to a day.

    Jitter of up to half the delay spreads out deliveries that failed together.
    """
    full: timedelta = min(INITIAL_RETRY_DELAY * 3 ** (attempts - 1), MAX_RETRY_DELAY)
    return full * random.uniform(0.5, 1)  # noqa: S311 not a secret
