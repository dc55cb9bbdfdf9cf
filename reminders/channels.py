"""The channels: how each one sends a delivery, and a table of how they differ."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from reminders import webhook
from reminders.mail import Mailer, MailServerDown, build_message
from reminders.models import Channel, Delivery, Notification, ReminderPreferences

# An attempt is never put off for longer.
MAX_RETRY_DELAY = timedelta(days=1)


# --- Errors ---------------------------------------------------------------------------------


class TransientError(Exception):
    """This attempt failed, but a later one may succeed."""

    def __init__(self, reason: str, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Unreachable(TransientError):
    """The server could not be reached, or did not answer in time."""


class PermanentError(Exception):
    """No attempt will succeed."""


class UnknownChannel(Exception):
    """The delivery's channel has no entry in CHANNELS, as during a deployment."""


# --- E-mail ---------------------------------------------------------------------------------


def send_email(deliveries: Sequence[Delivery], mailer: Mailer) -> None:
    """Raises PermanentError if the server rejects the message or its recipient for good (5xx)."""
    try:
        mailer.send(build_message(deliveries))
    except MailServerDown as error:
        raise Unreachable(f"The mail server cannot be reached: {error}") from error
    except smtplib.SMTPRecipientsRefused as error:
        ((code, text),) = error.recipients.values()
        raise _smtp_error(code, text) from error
    except smtplib.SMTPResponseException as error:
        raise _smtp_error(error.smtp_code, error.smtp_error) from error
    except (smtplib.SMTPException, OSError) as error:
        raise TransientError(f"{type(error).__name__}: {error}") from error


def _smtp_error(code: int, text: bytes | str) -> TransientError | PermanentError:
    answer = text.decode(errors="replace") if isinstance(text, bytes) else text
    reason = f"SMTP {code}: {answer}"
    return PermanentError(reason) if code >= 500 else TransientError(reason)


# --- Webhook --------------------------------------------------------------------------------


def send_webhook(deliveries: Sequence[Delivery], mailer: Mailer) -> None:
    """Standard Webhooks: 2xx is success, 410 is permanent, and any other answer is retried."""
    (delivery,) = deliveries
    preferences = ReminderPreferences.for_user(delivery.user)
    if not preferences.webhook_url:
        raise PermanentError("There is no webhook address.")
    url, secret = preferences.webhook_url, preferences.webhook_secret
    try:
        status, retry_after = webhook.post(url, secret, str(delivery.pk), _payload(delivery))
    except webhook.RefusedAddress as error:
        raise PermanentError(str(error)) from error
    except webhook.NO_ANSWER as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error
    if status == 410:
        _delete_webhook_url(preferences, url)
        raise PermanentError("HTTP 410: the address is gone. It has been removed.")
    if not 200 <= status < 300:
        raise TransientError(f"HTTP {status}", parse_retry_after(retry_after, datetime.now(UTC)))


def _delete_webhook_url(preferences: ReminderPreferences, url: str) -> None:
    """Delete the address, unless the user has changed it meanwhile."""
    unchanged = ReminderPreferences.objects.filter(pk=preferences.pk, webhook_url=url)
    unchanged.update(webhook_url="")


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
            "occurrence_at": delivery.occurrence_at.astimezone(reminder.zone).isoformat(),
            "is_late": delivery.is_late,
        },
    }


def parse_retry_after(header: str, now: datetime) -> timedelta | None:
    """A Retry-After header (RFC 9110, 10.2.3: seconds or a date), limited to 1 s … MAX_RETRY_DELAY.

    None if it is missing or malformed.
    """
    try:
        if header.isascii() and header.isdigit():
            delay = timedelta(seconds=min(int(header), MAX_RETRY_DELAY.total_seconds()))
        else:
            delay = parsedate_to_datetime(header) - now
    except (ValueError, TypeError):
        return None
    return min(max(delay, timedelta(seconds=1)), MAX_RETRY_DELAY)


# --- In-app ---------------------------------------------------------------------------------


def notify(deliveries: Sequence[Delivery], mailer: Mailer) -> None:
    """Create the notification. An attempt whose process died may have created it already."""
    (delivery,) = deliveries
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


# --- The table ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ChannelSpec:
    """How a channel differs from the others. To add a channel:

    1. Add a member with its label to reminders.deliveries.Channel, and make a migration.
    2. Write a function that sends a delivery and raises TransientError or PermanentError.
    3. Add an entry to CHANNELS. Every field needs a decision.
    4. Run the tests: they fail for a channel without an entry.
    5. Describe the channel in docs/guide.md.
    """

    send: Callable[[Sequence[Delivery], Mailer], None]
    """Send one delivery, or all of a digest. Raises TransientError and PermanentError."""
    batch_order: int
    """Lower numbers are sent first."""
    waits_for_quiet_hours: bool
    """It is sent after the user's quiet hours."""
    joins_digest: bool
    """It is sent in the user's daily digest. That goes before quiet hours."""
    has_one_server: bool
    """All users share one server. If it is unreachable, the rest of a batch skips the channel.
    Otherwise the batch skips only the same user's deliveries."""


CHANNELS: Mapping[str, ChannelSpec] = {
    Channel.EMAIL: ChannelSpec(
        send=send_email,
        batch_order=1,
        waits_for_quiet_hours=True,
        joins_digest=True,
        has_one_server=True,
    ),
    Channel.IN_APP: ChannelSpec(
        send=notify,
        batch_order=2,
        waits_for_quiet_hours=False,
        joins_digest=False,
        has_one_server=True,
    ),
    # Last, because a user's server may be slow.
    Channel.WEBHOOK: ChannelSpec(
        send=send_webhook,
        batch_order=3,
        waits_for_quiet_hours=True,
        joins_digest=False,
        has_one_server=False,
    ),
}


def _fail(deliveries: Sequence[Delivery], mailer: Mailer) -> None:
    raise UnknownChannel(f"There is no channel “{deliveries[0].channel}”.")


# The sweep creates deliveries over an unknown channel, too. They fail when they are sent, with an
# error in the log, and are retried, as the next version of the code may know the channel.
UNKNOWN_CHANNEL = ChannelSpec(
    send=_fail,
    batch_order=0,
    waits_for_quiet_hours=False,
    joins_digest=False,
    has_one_server=False,
)


def channel_spec(channel: str) -> ChannelSpec:
    """The channel's entry; for an unknown channel, one whose `send` raises UnknownChannel."""
    return CHANNELS.get(channel, UNKNOWN_CHANNEL)
