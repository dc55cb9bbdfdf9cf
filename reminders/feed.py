"""A user's pending reminders as an iCalendar feed (RFC 5545)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import MAXYEAR, datetime, timedelta
from functools import cache
from urllib.parse import urlsplit

from django.conf import settings
from django.urls import reverse
from icalendar import Alarm, Calendar, Event, Timezone, vRecur

from reminders.mail import one_line
from reminders.models import Reminder, ReminderPreferences
from reminders.recurrence import INVALID_SCHEDULE, Recurrence, to_utc

logger = logging.getLogger(__name__)

# Calendar programs often download the whole feed again.
MAX_EVENTS = 1000
EVENT_LENGTH = timedelta(minutes=15)


def feed_url(preferences: ReminderPreferences) -> str:
    """The feed's URL. Its secret is the only protection, as calendar programs cannot sign in."""
    path = reverse("reminder-feed", args=[preferences.feed_secret])
    return f"{settings.PUBLIC_URL}{path}"


def feed(preferences: ReminderPreferences) -> bytes:
    """The user's pending reminders as an .ics file, the earliest MAX_EVENTS of them."""
    own = Reminder.objects.for_user(preferences.user).pending().select_related("note")
    return calendar(own.defer("note__content")[:MAX_EVENTS])


def calendar(reminders: Iterable[Reminder]) -> bytes:
    """The reminders as a calendar, with a VTIMEZONE for each time zone of a rule."""
    events = [event for event in map(_event_or_none, reminders) if event]
    # Times in UTC have no zone.
    zones = {zone for event, _ in events if (zone := event["dtstart"].params.get("TZID"))}
    parts = [*map(_time_zone, sorted(zones)), *(ics for _, ics in events)]
    head, end, tail = _empty_calendar().to_ical().partition(b"END:VCALENDAR")
    return b"".join([head, *parts, end, tail])


def _empty_calendar() -> Calendar:
    result = Calendar()
    result.add("prodid", "-//Scribes//Reminders//EN")
    result.add("version", "2.0")
    result.add("x-wr-calname", "Scribes")
    return result


# There are about 600 zones, of some kilobytes each. Writing one takes longer than many events.
@cache
def _time_zone(name: str) -> bytes:
    """The VTIMEZONE of a zone."""
    ics: bytes = Timezone.from_tzid(name).to_ical()
    return ics


def _event_or_none(reminder: Reminder) -> tuple[Event, bytes] | None:
    """The event, and as text; None if the reminder cannot be shown: the others stay in the feed."""
    try:
        event = _event(reminder)
        return event, event.to_ical()
    except Exception:
        logger.exception("Reminder %s cannot be shown in a calendar", reminder.pk)
        return None


def _event(reminder: Reminder) -> Event:
    """The reminder as an event. A recurring one starts where its rule starts; a snooze is not shown."""
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
    """The rule, with UNTIL in UTC as RFC 5545 (3.3.10) asks for if the start has a time zone.

    None if there is no rule or it is invalid. Then the calendar shows only the next time.
    """
    try:
        recurrence = reminder.recurrence
        if recurrence is None:
            return None
        rule = _ical_rule(recurrence)
    except INVALID_SCHEDULE:
        return None
    until = recurrence.arguments.get("until")
    if until and 1 < until.year < MAXYEAR:
        rule["UNTIL"] = [to_utc(until, recurrence.zone).replace(microsecond=0)]
    return rule


def _ical_rule(recurrence: Recurrence) -> vRecur:
    parts = recurrence.parts.items()
    rule: vRecur = vRecur.from_ical(";".join(f"{name}={value}" for name, value in parts))
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
