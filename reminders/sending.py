"""One delivery -> e-mail, webhook or in-app: claim, send while no transaction is open, record.

At least once, and mostly once: each delivery is claimed by one process at a time, and what the far
end took is recorded at once. If the process dies in between, the delivery is sent again after its
lease, under the same Message-ID or webhook-id, by which the far end can tell. SMTP cannot do better.
In-app notifications are rows, and exactly one each.

Not promised: an order among deliveries; and that quiet hours hold for what was begun before them.
"""

from __future__ import annotations

import logging
import random
import smtplib
import time
from collections import deque
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import groupby
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from redis import RedisError

from jobs import broker
from jobs.failpoints import failpoint
from jobs.reconciler import PATIENCE_WITH_A_BUSY_QUEUE
from reminders import mail, webhook
from reminders.mail import Mailer
from reminders.models import (
    Channel,
    Delivery,
    DeliveryAttempt,
    Notification,
    Reminder,
    ReminderPreferences,
)
from reminders.sweep import SWEEP_BATCH_SIZE, database_now, publish_deliveries
from scribes.logs import about

logger = logging.getLogger(__name__)

Outcome = DeliveryAttempt.Outcome

# What a message still names after this goes on in a new one: far below TASK_TIME_LIMIT, and before
# it counts as lost (JOB_REPUBLISH_SECONDS).
SEND_SECONDS = 30
# The first delay; each is three times the one before, up to a day: about four days in all.
FIRST_DELAY = timedelta(minutes=1)
LONGEST_DELAY = timedelta(days=1)
MAX_ATTEMPTS = 12


class SendError(Exception):
    """This attempt failed, but a later one may do better."""

    def __init__(self, reason: str, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class NoAnswer(SendError):
    """The far end could not be reached, or was silent for too long."""


class PermanentError(Exception):
    """No attempt will do better."""


# --- Batches --------------------------------------------------------------------------------


def send_all(delivery_ids: Sequence[UUID]) -> None:
    """Send these, one after the other. Those that take too long go on in another message."""
    until = time.monotonic() + SEND_SECONDS
    ready = Delivery.objects.ready().filter(pk__in=delivery_ids)
    # Webhooks come last: the far end is whatever somebody chose, and may take its time.
    order = ("channel", "occurrence_at", "pk")
    waiting = deque(ready.order_by(*order).only("channel", "digest", "user"))
    silent: set[int] = set()
    with Mailer() as mailer:
        while waiting and time.monotonic() < until:
            delivery = waiting.popleft()
            # Those that wait for a mail server that is down stay as they are, for the next resend.
            if mailer.is_down and delivery.channel == Channel.EMAIL:
                continue
            # Nor do those of a user whose webhook did not answer wait for it one by one.
            if delivery.channel == Channel.WEBHOOK and delivery.user_id in silent:
                continue
            if not _try(delivery, mailer):
                silent.add(delivery.user_id)
    _tell(waiting)


def _try(delivery: Delivery, mailer: Mailer) -> bool:
    """One that cannot be claimed or recorded, as when its reminder is being deleted, must not end
    the batch: its lease will."""
    try:
        return send(delivery, mailer)
    except DatabaseError:
        if not connection.is_usable():
            raise
        logger.exception("%s could not be recorded", delivery.pk)
        return True


def send(delivery: Delivery, mailer: Mailer) -> bool:
    """Claim -> send -> record. Returns quietly where there is nothing to claim; False where the far
    end gave no answer."""
    deliveries = Delivery.claim(delivery)
    if not deliveries:
        return True
    failpoint("after_delivery_claim")
    first = deliveries[0]
    with about(delivery=first.pk, request_id=first.reminder.request_id):
        return _send_claimed(deliveries, mailer)


def _send_claimed(deliveries: list[Delivery], mailer: Mailer) -> bool:
    try:
        _send(deliveries, mailer)
    except SendError as error:
        _postpone(deliveries, str(error), error.retry_after)
        return not isinstance(error, NoAnswer)
    except PermanentError as error:
        _record(deliveries, Outcome.FAILED, str(error), status=Delivery.Status.FAILED)
    except Exception as error:
        logger.exception("%s could not be sent", deliveries[0])
        _postpone(deliveries, f"{type(error).__name__}: {error}")
    else:
        failpoint("after_send")
        _record(deliveries, Outcome.SENT, "", status=Delivery.Status.SENT, sent_at=Now())
    return True


def _send(deliveries: list[Delivery], mailer: Mailer) -> None:
    """Raises SendError and PermanentError."""
    if not deliveries[0].user.is_active:
        raise PermanentError("The account is disabled.")
    channel = deliveries[0].channel
    if channel == Channel.EMAIL:
        send_email(deliveries, mailer)
    elif channel == Channel.WEBHOOK:
        send_webhook(deliveries[0])
    else:
        notify(deliveries[0])


def _record(
    deliveries: list[Delivery],
    outcome: DeliveryAttempt.Outcome,
    reason: str,
    **fields: object,
) -> None:
    """What came of it, for each that is still ours; and the end of reminders that wait for it."""
    reminders = sorted({delivery.reminder_id for delivery in deliveries})
    with transaction.atomic():
        _lock(reminders)
        ours = [d.record(outcome, reason, **fields) for d in deliveries]
        Reminder.close(reminders)
    failpoint("after_delivery_commit")
    if not all(ours):
        logger.info("%s had lost its lease; nothing is written", deliveries[0])
    elif outcome == Outcome.SENT:
        logger.info("%s sent", deliveries[0])
    else:
        logger.warning("%s %s: %s", deliveries[0], outcome.label, reason)


def _lock(reminder_ids: Sequence[int]) -> None:
    rows = Reminder.objects.filter(pk__in=reminder_ids).order_by("pk")
    list(rows.select_for_update(no_key=True).values_list("pk"))


def _postpone(
    deliveries: list[Delivery], reason: str, retry_after: timedelta | None = None
) -> None:
    """sending -> pending, for a later time; -> failed once MAX_ATTEMPTS are used up."""
    attempts = max(delivery.attempts for delivery in deliveries)
    if attempts >= MAX_ATTEMPTS:
        reason = f"Given up after {attempts} attempts: {reason}"
        _record(deliveries, Outcome.FAILED, reason, status=Delivery.Status.FAILED)
    else:
        # One moment for all, or a digest would come apart.
        moment = database_now() + max(delay(attempts), retry_after or timedelta())
        _record(
            deliveries,
            Outcome.POSTPONED,
            reason,
            status=Delivery.AGAIN,
            next_attempt_at=moment,
            dispatched_at=None,
        )


def delay(attempts: int) -> timedelta:
    """Until the next attempt: 30 to 60 s after the first, growing threefold up to a day.

    Jittered by half, so that what failed together does not come again together.
    """
    full: timedelta = min(FIRST_DELAY * 3 ** (attempts - 1), LONGEST_DELAY)
    return full * random.uniform(0.5, 1)  # noqa: S311 no secret


# --- Channels -------------------------------------------------------------------------------


def send_email(deliveries: list[Delivery], mailer: Mailer) -> None:
    """Raises PermanentError if the server refuses the message or its recipient for good (5xx)."""
    try:
        mailer.send(mail.message(deliveries))
    except mail.Unreachable as error:
        raise SendError(f"The mail server cannot be reached: {error}") from error
    except smtplib.SMTPRecipientsRefused as error:
        ((code, text),) = error.recipients.values()
        raise _smtp_error(code, text) from error
    except smtplib.SMTPResponseException as error:
        raise _smtp_error(error.smtp_code, error.smtp_error) from error
    except (smtplib.SMTPException, OSError) as error:
        raise SendError(f"{type(error).__name__}: {error}") from error


def _smtp_error(code: int, text: bytes | str) -> SendError | PermanentError:
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    reason = f"SMTP {code}: {said}"
    return PermanentError(reason) if code >= 500 else SendError(reason)


def send_webhook(delivery: Delivery) -> None:
    """Any answer but 2xx is a failure that may pass, as Standard Webhooks has it; 410 never does."""
    preferences = ReminderPreferences.of(delivery.user)
    if not preferences.webhook_url:
        raise PermanentError("There is no webhook address.")
    url, secret = preferences.webhook_url, preferences.webhook_secret
    try:
        status, retry_after = webhook.post(url, secret, str(delivery.pk), _payload(delivery))
    except webhook.RefusedAddress as error:
        raise PermanentError(str(error)) from error
    except webhook.NO_ANSWER as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error
    if status == 410:
        ReminderPreferences.objects.filter(pk=preferences.pk, webhook_url=url).update(
            webhook_url=""
        )
        raise PermanentError("HTTP 410: the address is gone, and is not called any more.")
    if not 200 <= status < 300:
        raise SendError(f"HTTP {status}", wait(retry_after, datetime.now(UTC)))


def _payload(delivery: Delivery) -> dict[str, object]:
    reminder = delivery.reminder
    return {
        "type": "reminder.due",
        "timestamp": datetime.now(UTC).isoformat(),
        "data": {
            "reminder_id": reminder.pk,
            "note_id": reminder.note_id,
            "title": reminder.note.title,
            "message": reminder.message,
            "due_at": delivery.occurrence_at.astimezone(reminder.zone).isoformat(),
            "is_late": delivery.is_late,
        },
    }


def wait(retry_after: str, now: datetime) -> timedelta | None:
    """What Retry-After says (RFC 9110, 10.2.3: seconds or a date), from 1 s to a day."""
    try:
        if retry_after.isascii() and retry_after.isdigit():
            asked = timedelta(seconds=min(int(retry_after), LONGEST_DELAY.total_seconds()))
        else:
            asked = parsedate_to_datetime(retry_after) - now
    except (ValueError, TypeError):
        return None
    return min(max(asked, timedelta(seconds=1)), LONGEST_DELAY)


def notify(delivery: Delivery) -> None:
    """A row that is there already is of an attempt whose process died before it was recorded."""
    Notification.objects.get_or_create(
        delivery=delivery,
        defaults={
            "user": delivery.user,
            "reminder": delivery.reminder,
            "title": delivery.reminder.note.title,
            "message": delivery.reminder.message,
            "occurrence_at": delivery.occurrence_at,
        },
    )


# --- Again ----------------------------------------------------------------------------------


def resend() -> None:
    """What a tick does: free what dead processes held, and send messages for all that is ready.

    Ready and without a message are those whose time to try again has come, those that waited for a
    digest or the end of quiet hours, and those whose message was lost. Twice at once does no harm.
    """
    release_expired()
    try:
        busy = broker.queue_length("reminders") > 0
    except RedisError as error:
        logger.warning("The broker does not answer; publishing waits: %s", error)
        return
    patience = settings.JOB_REPUBLISH_SECONDS * (PATIENCE_WITH_A_BUSY_QUEUE if busy else 1)
    while _publish_some(patience):
        pass


def _publish_some(patience: int) -> int:
    """One message's worth, told in the same transaction; how many deliveries that were."""
    with transaction.atomic():
        untold = Delivery.objects.told_before(patience).order_by("next_attempt_at")
        locked = untold.select_for_update(skip_locked=True, no_key=True)[:SWEEP_BATCH_SIZE]
        deliveries = list(locked.only("pk"))
        _tell(deliveries)
        failpoint("before_resend_commit")
    return len(deliveries)


def _tell(deliveries: Collection[Delivery]) -> None:
    """Send a message for them, and note when, in one transaction."""
    with transaction.atomic():
        told = Delivery.objects.filter(pk__in=[delivery.pk for delivery in deliveries])
        told.update(dispatched_at=Now())
        publish_deliveries(delivery.pk for delivery in deliveries)


def release_expired() -> None:
    """sending -> pending, or failed, where a lease ran out: nobody knows whether it was sent.

    What was to go out in one mail comes back at once, or the rest of it would come later, under a
    Message-ID that the far end has seen. Where its process comes to an end after all, whoever
    records first wins.
    """
    expired = sorted(Delivery.objects.expired(), key=_mail)
    for _, deliveries in groupby(expired, key=_mail):
        try:
            _release(list(deliveries))
        except DatabaseError:
            if not connection.is_usable():
                raise
            logger.exception("Deliveries of a lost process could not be released")


def _mail(delivery: Delivery) -> UUID:
    return delivery.digest or delivery.pk


def _release(deliveries: list[Delivery]) -> None:
    reason = "The process that sent it died or hung; whether it arrived is not known."
    given_up = max(delivery.attempts for delivery in deliveries) >= MAX_ATTEMPTS
    status = Delivery.Status.FAILED if given_up else Delivery.AGAIN
    _record(deliveries, Outcome.LOST, reason, status=status, dispatched_at=None)
