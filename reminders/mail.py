"""Reminders as e-mails, and the SMTP connection that a batch of them shares."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.template.loader import render_to_string

from reminders.links import action_links, action_url
from reminders.models import Delivery

SUBJECT_MAX_CHARACTERS = 200


def build_message(deliveries: Sequence[Delivery]) -> EmailMultiAlternatives:
    """The mail for one reminder, or for a digest of one user's reminders."""
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
        # Naive, because Django's templates convert an aware time to the server's zone.
        "occurrence": delivery.occurrence_at.astimezone(reminder.zone).replace(tzinfo=None),
        "zone": reminder.time_zone,
        "is_late": delivery.is_late,
        "links": action_links(delivery),
    }


def _subject(deliveries: Sequence[Delivery]) -> str:
    first = deliveries[0]
    late = " (late)" if first.is_late else ""
    if len(deliveries) > 1:
        return f"{len(deliveries)} reminders"
    # Mail programs would decode an encoded word (RFC 2047), including its line breaks.
    title = one_line(first.reminder.note.title).replace("=?", "= ?")
    return f"Reminder{late}: {title}"[:SUBJECT_MAX_CHARACTERS]


def one_line(text: str) -> str:
    """The text without line breaks and control characters, for a header."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _headers(deliveries: Sequence[Delivery]) -> dict[str, str]:
    headers = {"Message-ID": message_id(deliveries), "Auto-Submitted": "auto-generated"}
    if len(deliveries) == 1:
        unsubscribe = action_url(deliveries[0], "cancel")
        headers["List-Unsubscribe"] = f"<{unsubscribe}>"
        headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return headers


def message_id(deliveries: Sequence[Delivery]) -> str:
    """The Message-ID. It is the same at each attempt, so a mail sent twice can be recognised."""
    key = deliveries[0].digest or deliveries[0].pk
    return f"<{key}@{urlsplit(settings.PUBLIC_URL).hostname}>"


class MailServerDown(Exception):
    """The mail server cannot be reached, or accepts no connection."""


class Mailer:
    """One SMTP connection for many messages. It is opened for the first and after an error."""

    def __init__(self) -> None:
        self._connection: Any = None

    def __enter__(self) -> Mailer:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def send(self, mail: EmailMultiAlternatives) -> None:
        """Raises MailServerDown, or smtplib.SMTPException or OSError for a problem with this message."""
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
            raise MailServerDown(f"{type(error).__name__}: {error}") from error
        self._connection = connection

    def _close(self) -> None:
        if self._connection is not None:
            try:
                self._connection.close()
            except (smtplib.SMTPException, OSError):
                pass  # the messages have already been sent
            self._connection = None
