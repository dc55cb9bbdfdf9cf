"""Signed links: whoever holds one may do one thing to one reminder, without signing in.

Opening a link (GET) changes nothing, since mail scanners open every link in a mail; it shows a page
with one button. The button, and mail programs that know RFC 8058, send POST, which does it. A
second POST of the same link changes nothing more, and says what became of the first.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.core import signing
from django.urls import reverse

from reminders.models import Delivery, Reminder

SALT = "reminders.links"
VALID_FOR = timedelta(days=60)

# What the links in a mail offer, and the minutes that each puts the reminder off; None cancels it.
ACTIONS: dict[str, int | None] = {"snooze-1h": 60, "snooze-1d": 24 * 60, "cancel": None}
LABELS = {
    "snooze-1h": "Remind me again in an hour",
    "snooze-1d": "Remind me again in a day",
    "cancel": "Cancel this reminder",
}


class Wish(NamedTuple):
    """What a link asks for."""

    reminder: Reminder
    action: str
    occurrence: int
    """Of which the mail told, in seconds since 1970."""


def link(delivery: Delivery, action: str) -> str:
    occurrence = int(delivery.occurrence_at.timestamp())
    token = signing.dumps([delivery.reminder_id, action, occurrence], salt=SALT)
    return f"{settings.PUBLIC_URL}{reverse('reminder-link', args=[token])}"


def links(delivery: Delivery) -> list[tuple[str, str]]:
    """(label, URL) of every action."""
    return [(LABELS[action], link(delivery, action)) for action in ACTIONS]


def read(token: str) -> Wish | None:
    """None if the link is forged or too old, or the reminder is gone."""
    try:
        pk, action, occurrence = signing.loads(token, salt=SALT, max_age=VALID_FOR)
    except (signing.BadSignature, ValueError):
        return None
    reminder = Reminder.objects.select_related("note").filter(pk=pk).first()
    return Wish(reminder, action, occurrence) if reminder else None


def fulfil(wish: Wish, now: datetime) -> str:
    """Do it, unless that has been done already; a sentence that says what came of it."""
    minutes = ACTIONS[wish.action]
    if minutes is None:
        return _cancel(wish.reminder)
    return _snooze(wish, now + timedelta(minutes=minutes))


def _cancel(reminder: Reminder) -> str:
    if reminder.cancel() or reminder.status == Reminder.Status.CANCELLED:
        return "Done: this reminder is cancelled."
    return "That can no longer be done: the reminder has ended."


def _snooze(wish: Wish, until: datetime) -> str:
    done = wish.reminder.snooze(until, link=f"{wish.action} {wish.occurrence}")
    wish.reminder.refresh_from_db(fields=["status", "scheduled_at", "time_zone"])
    if done:
        return f"Done: it comes again on {_clock(wish.reminder)}."
    if wish.reminder.status == Reminder.Status.PENDING:
        return f"Already snoozed: it comes again on {_clock(wish.reminder)}."
    if wish.reminder.status == Reminder.Status.CANCELLED:
        return "That can no longer be done: the reminder is cancelled."
    return "This link has been used already, and the reminder has come again since."


def _clock(reminder: Reminder) -> str:
    moment = reminder.scheduled_at.astimezone(reminder.zone)
    return f"{moment:%A, %-d %B %Y, %H:%M} ({reminder.time_zone})"
