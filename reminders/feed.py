"""A user's pending reminders as an iCalendar feed (RFC 5545) for calendar programs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.urls import reverse
from icalendar import Alarm, Calendar, Event, vRecur

from reminders.mail import one_line
from reminders.models import Reminder, ReminderPreferences

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
        result.add_component(_event(reminder))
    result.add_missing_timezones()
    return result


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
    """None, too, where the library cannot read it: one reminder must not break the whole feed."""
    text = reminder.rrule.strip().upper().removeprefix("RRULE:").rstrip(";")
    try:
        rule: vRecur = vRecur.from_ical(text)
    except ValueError:
        return None
    return rule or None


def _start(reminder: Reminder) -> datetime:
    start = datetime.combine(reminder.start_date, reminder.start_time)
    return start.replace(tzinfo=reminder.zone)


def _alarm(reminder: Reminder) -> Alarm:
    alarm = Alarm()
    alarm.add("action", "DISPLAY")
    alarm.add("description", one_line(reminder.note.title))
    alarm.add("trigger", timedelta())
    return alarm
