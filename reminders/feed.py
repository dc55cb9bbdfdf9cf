"""A user's pending reminders as an iCalendar feed (RFC 5545) for calendar programs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import MAXYEAR, datetime, timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.urls import reverse
from icalendar import Alarm, Calendar, Event, vRecur

from reminders.mail import one_line
from reminders.models import UNREADABLE, Reminder, ReminderPreferences
from reminders.recurrence import to_utc

logger = logging.getLogger(__name__)

# Calendar programs ask for the whole feed again and again.
MAX_EVENTS = 1000
EVENT_LENGTH = timedelta(minutes=15)


def feed_url(preferences: ReminderPreferences) -> str:
    """The secret in it is the only protection, as calendar programs sign in nowhere."""
    path = reverse("reminder-feed", args=[preferences.feed_secret])
    return f"{settings.PUBLIC_URL}{path}"


def feed(preferences: ReminderPreferences) -> bytes:
    own = Reminder.objects.for_user(preferences.user).pending().select_related("note")
    ics: bytes = calendar(own[:MAX_EVENTS]).to_ical()
    return ics


def calendar(reminders: Iterable[Reminder]) -> Calendar:
    """With a VTIMEZONE for every zone that a rule needs."""
    result = Calendar()
    result.add("prodid", "-//Scribes//Reminders//EN")
    result.add("version", "2.0")
    result.add("x-wr-calname", "Scribes")
    for reminder in reminders:
        if event := _event_or_none(reminder):
            result.add_component(event)
    result.add_missing_timezones()
    return result


def _event_or_none(reminder: Reminder) -> Event | None:
    """Whatever is wrong with one reminder, the others stay in the feed."""
    try:
        event = _event(reminder)
        event.to_ical()
    except Exception:
        logger.exception("Reminder %s cannot be shown in a calendar", reminder.pk)
        return None
    return event


def _event(reminder: Reminder) -> Event:
    """What recurs starts where its rule starts; a snooze of one occurrence does not show."""
    event = Event()
    event.add("uid", f"reminder-{reminder.pk}@{urlsplit(settings.PUBLIC_URL).hostname}")
    event.add("dtstamp", reminder.updated_at)
    event.add("summary", one_line(reminder.note.title))
    if reminder.message:
        event.add("description", reminder.message)
    rule = _rule(reminder)
    event.add("dtstart", _start(reminder) if rule else reminder.scheduled_at)
    event.add("duration", EVENT_LENGTH)
    if rule:
        event.add("rrule", rule)
    event.add_component(_alarm(reminder))
    return event


def _rule(reminder: Reminder) -> vRecur | None:
    """None, too, where it cannot be read: then the calendar shows the next time alone."""
    try:
        recurrence = reminder.recurrence
        if recurrence is None:
            return None
        text = ";".join(f"{name}={value}" for name, value in recurrence.parts.items())
        rule: vRecur = vRecur.from_ical(text)
    except UNREADABLE:
        return None
    until = recurrence.arguments.get("until")
    if until and 1 < until.year < MAXYEAR:
        # In UTC, as RFC 5545 (3.3.10) has it where the start has a zone.
        rule["UNTIL"] = [to_utc(until, recurrence.zone).replace(microsecond=0)]
    return rule


def _start(reminder: Reminder) -> datetime:
    start = datetime.combine(reminder.start_date, reminder.start_time)
    return start.replace(tzinfo=reminder.zone)


def _alarm(reminder: Reminder) -> Alarm:
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("description", one_line(reminder.note.title))
    alarm.add("trigger", timedelta())
    return alarm
