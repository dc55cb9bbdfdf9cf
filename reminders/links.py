"""Signed links: whoever holds one may do one thing to one reminder, without signing in.

Opening a link (GET) changes nothing, since mail scanners open every link in a mail; it shows a page
with one button. The button, and mail programs that know RFC 8058, send POST, which does it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.core import signing
from django.urls import reverse

from reminders.models import Reminder

SALT = "reminders.links"
VALID_FOR = timedelta(days=60)

# What the links in a mail offer, and the minutes that each puts the reminder off; None cancels it.
ACTIONS: dict[str, int | None] = {"snooze-1h": 60, "snooze-1d": 24 * 60, "cancel": None}
LABELS = {
    "snooze-1h": "Remind me again in an hour",
    "snooze-1d": "Remind me again in a day",
    "cancel": "Cancel this reminder",
}


def link(reminder: Reminder, action: str) -> str:
    token = signing.dumps([reminder.pk, action], salt=SALT)
    return f"{settings.PUBLIC_URL}{reverse('reminder-link', args=[token])}"


def links(reminder: Reminder) -> list[tuple[str, str]]:
    """(label, URL) of every action."""
    return [(LABELS[action], link(reminder, action)) for action in ACTIONS]


def read(token: str) -> tuple[Reminder, str] | None:
    """The reminder and the action; None if it is forged or too old, or the reminder is gone."""
    try:
        pk, action = signing.loads(token, salt=SALT, max_age=VALID_FOR)
    except signing.BadSignature:
        return None
    reminder = Reminder.objects.select_related("note").filter(pk=pk).first()
    return (reminder, action) if reminder else None


def act(reminder: Reminder, action: str, now: datetime) -> bool:
    """Do it; False if the reminder is in no state for it. Doing it twice is doing it once."""
    minutes = ACTIONS[action]
    if minutes is None:
        return reminder.cancel() or reminder.status == Reminder.Status.CANCELLED
    return reminder.snooze(now + timedelta(minutes=minutes))
