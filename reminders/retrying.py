"""Retries: release the deliveries of dead processes, and publish messages for all that are ready."""

from __future__ import annotations

import logging
from itertools import groupby
from uuid import UUID

from django.db import DatabaseError, connection, transaction
from redis import RedisError

from reminders.dispatch import MAX_DELIVERIES_PER_MESSAGE, dispatch_deliveries
from reminders.models import Delivery, DeliveryAttempt
from reminders.sending import MAX_ATTEMPTS, record_outcome
from scribes.messaging.failpoints import failpoint
from scribes.messaging.publishing import republish_after

logger = logging.getLogger(__name__)

FAILPOINTS = ("before_retry_commit",)


def retry_due_deliveries() -> None:
    """Release expired leases, then publish a message for each ready delivery that has none.

    Those are deliveries that are due for another attempt, that waited for a digest or for the end of
    quiet hours, or whose message was lost. Running it twice at once does no harm.
    """
    release_expired()
    try:
        seconds = republish_after("reminders")
    except RedisError as error:
        logger.warning("Redis does not answer, so no messages are published: %s", error)
        return
    while _dispatch_batch(seconds):
        pass


def _dispatch_batch(seconds: int) -> int:
    """Dispatch as many deliveries as fit into one message; return their number."""
    with transaction.atomic():
        undispatched = Delivery.objects.undispatched_or_lost(seconds).order_by("next_attempt_at")
        unlocked = undispatched.select_for_update(skip_locked=True, no_key=True)
        deliveries = list(unlocked.only("pk")[:MAX_DELIVERIES_PER_MESSAGE])
        dispatch_deliveries(deliveries)
        failpoint("before_retry_commit")
    return len(deliveries)


def release_expired() -> None:
    """sending -> pending, or failed, for deliveries whose lease expired. They may have been sent.

    The deliveries of one mail are released together. Otherwise some of them would be sent later with
    a Message-ID that the receiver has already seen. If the process with the lease is still alive, the
    first to record an outcome wins.
    """
    expired = sorted(Delivery.objects.expired(), key=_mail_id)
    for _, deliveries in groupby(expired, key=_mail_id):
        try:
            _release(list(deliveries))
        except DatabaseError:
            if not connection.is_usable():
                raise
            logger.exception("The deliveries of a lost process could not be released")


def _mail_id(delivery: Delivery) -> UUID:
    return delivery.digest or delivery.pk


def _release(deliveries: list[Delivery]) -> None:
    reason = "The sending process died or hung. It is unknown whether the reminder arrived."
    is_given_up = max(delivery.attempts for delivery in deliveries) >= MAX_ATTEMPTS
    status = Delivery.Status.FAILED if is_given_up else Delivery.RETRY_STATUS
    lost = DeliveryAttempt.Outcome.LOST
    record_outcome(deliveries, lost, reason, status=status, dispatched_at=None)
