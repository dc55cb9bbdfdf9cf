"""What a reminder looks like as an e-mail, and the connection that a batch of them shares."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.template.loader import render_to_string

from reminders.links import link, links
from reminders.models import Delivery

SUBJECT_MAX_CHARACTERS = 200


def message(deliveries: Sequence[Delivery]) -> EmailMultiAlternatives:
    """One reminder, or a digest of several, to the one user that they belong to."""
    items = [_item(delivery) for delivery in deliveries]
    text, html = (
        render_to_string(f"reminders/mail.{kind}", {"items": items}) for kind in ("txt", "html")
    )
    mail = EmailMultiAlternatives(
        _subject(deliveries), text, to=[deliveries[0].user.email], headers=_headers(deliveries)
    )
    mail.attach_alternative(html, "text/html")
    return mail


def _item(delivery: Delivery) -> dict[str, Any]:
    reminder = delivery.reminder
    return {
        "title": one_line(reminder.note.title),
        "message": reminder.message,
        # Naive, since Django's templates would move an aware time to the server's zone.
        "due": delivery.occurrence_at.astimezone(reminder.zone).replace(tzinfo=None),
        "zone": reminder.time_zone,
        "is_late": delivery.is_late,
        "links": links(delivery),
    }


def _subject(deliveries: Sequence[Delivery]) -> str:
    first = deliveries[0]
    late = " (late)" if first.is_late else ""
    if len(deliveries) > 1:
        return f"{len(deliveries)} reminders"
    # What looks like an encoded word (RFC 2047) would be decoded by the reader, line breaks and all.
    title = one_line(first.reminder.note.title).replace("=?", "= ?")
    return f"Reminder{late}: {title}"[:SUBJECT_MAX_CHARACTERS]


def one_line(text: str) -> str:
    """Without line breaks and control characters: neither may get into a header."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _headers(deliveries: Sequence[Delivery]) -> dict[str, str]:
    headers = {"Message-ID": message_id(deliveries), "Auto-Submitted": "auto-generated"}
    if len(deliveries) == 1:
        unsubscribe = link(deliveries[0], "cancel")
        headers["List-Unsubscribe"] = f"<{unsubscribe}>"
        headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return headers


def message_id(deliveries: Sequence[Delivery]) -> str:
    """The same at each attempt, so that a mail sent twice can be recognised as one."""
    key = deliveries[0].digest or deliveries[0].pk
    return f"<{key}@{urlsplit(settings.PUBLIC_URL).hostname}>"


class Unreachable(Exception):
    """The mail server takes no messages at present, whatever they are."""


class Mailer:
    """One connection for many messages, opened at the first and again after an error.

    Once the server could not be reached it is not asked again: each message of a long batch
    would wait for the same time-out.
    """

    def __init__(self) -> None:
        self.is_down = False
        self._connection: Any = None

    def __enter__(self) -> Mailer:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def send(self, mail: EmailMultiAlternatives) -> None:
        """Raises Unreachable, smtplib.SMTPException or OSError, the last two about this message."""
        if self._connection is None:
            self._open()
        try:
            self._connection.send_messages([mail])
        except (smtplib.SMTPException, OSError):
            self._close()
            raise

    def _open(self) -> None:
        connection = get_connection()
        try:
            connection.open()
        except (smtplib.SMTPException, OSError) as error:
            self.is_down = True
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        self._connection = connection

    def _close(self) -> None:
        if self._connection is not None:
            try:
                self._connection.close()
            except (smtplib.SMTPException, OSError):
                pass  # what was sent is sent
            self._connection = None
