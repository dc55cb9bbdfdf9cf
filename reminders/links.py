"""Signed links in mails: each one allows one action on one reminder without signing in.

Opening a link (GET) changes nothing, because mail scanners open every link in a mail. It shows a
page with one button. The button sends POST, as do mail programs that support RFC 8058, and POST
executes the action. A second POST of the same link changes nothing and says so.
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

# The actions and the minutes by which each one snoozes the reminder; None cancels it.
ACTIONS: dict[str, int | None] = {"snooze-1h": 60, "snooze-1d": 24 * 60, "cancel": None}
LABELS = {
    "snooze-1h": "Remind me again in an hour",
    "snooze-1d": "Remind me again in a day",
    "cancel": "Cancel this reminder",
}


class LinkAction(NamedTuple):
    """The action of a valid link."""

    reminder: Reminder
    action: str
    occurrence: int
    """The occurrence that the mail was about, in seconds since 1970."""


def action_url(delivery: Delivery, action: str) -> str:
    """The signed URL of one action."""
    occurrence = int(delivery.occurrence_at.timestamp())
    token = signing.dumps([delivery.reminder_id, action, occurrence], salt=SALT)
    return f"{settings.PUBLIC_URL}{reverse('reminder-link', args=[token])}"


def action_links(delivery: Delivery) -> list[tuple[str, str]]:
    """The label and the URL of every action."""
    return [(LABELS[action], action_url(delivery, action)) for action in ACTIONS]


def parse_token(token: str) -> LinkAction | None:
    """The action of a link; None if it is forged or expired, or the reminder was deleted."""
    try:
        pk, action, occurrence = signing.loads(token, salt=SALT, max_age=VALID_FOR)
    except (signing.BadSignature, ValueError):
        return None
    reminder = Reminder.objects.select_related("note").defer("note__content").filter(pk=pk).first()
    return LinkAction(reminder, action, occurrence) if reminder else None


def execute(action: LinkAction, now: datetime) -> str:
    """Execute the action unless that has been done already; return the result as a sentence."""
    minutes = ACTIONS[action.action]
    if minutes is None:
        return _cancel(action.reminder)
    return _snooze(action, now + timedelta(minutes=minutes))


def _cancel(reminder: Reminder) -> str:
    if reminder.cancel() or reminder.status == Reminder.Status.CANCELLED:
        return "Done: this reminder is cancelled."
    return "This can no longer be done: the reminder has ended."


def _snooze(action: LinkAction, until: datetime) -> str:
    reminder = action.reminder
    is_snoozed = reminder.snooze(until, link=f"{action.action} {action.occurrence}")
    reminder.refresh_from_db(fields=["status", "scheduled_at", "time_zone"])
    if is_snoozed:
        return f"Done: you will be reminded again on {_next_time(reminder)}."
    if reminder.is_pending:
        return f"Already snoozed: you will be reminded again on {_next_time(reminder)}."
    if reminder.status == Reminder.Status.CANCELLED:
        return "This can no longer be done: the reminder is cancelled."
    return "This link has already been used, and you have been reminded again since."


def _next_time(reminder: Reminder) -> str:
    local = reminder.scheduled_at.astimezone(reminder.zone)
    return f"{local:%A, %-d %B %Y, %H:%M} ({reminder.time_zone})"
