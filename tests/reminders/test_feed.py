"""The calendar feed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import icalendar
from django.test import Client
from django.utils import timezone
from icalendar import Calendar
from rest_framework.test import APIClient

from notes.models import Note
from reminders.feed import calendar
from reminders.models import Reminder
from scribes.models import User
from tests.helpers.factories import make_reminder
from tests.helpers.reminders import Post


def feed_path(api: APIClient) -> str:
    url: str = api.get("/reminders/preferences").json()["feed_url"]
    return url.removeprefix("http://localhost:8000")


def test_feed_has_pending_reminders(create: Post, api: APIClient, client: Client, note: Note):
    Note.objects.filter(pk=note.pk).update(title="Rest;\r\nEND:VCALENDAR")
    create(
        scheduled_at="2030-03-01T19:00:00+01:00",
        time_zone="Europe/Berlin",
        rrule="FREQ=WEEKLY;BYDAY=FR",
        message="One, two; three",
    )
    create(scheduled_at="2031-01-01T00:00:00Z")
    cancelled = create()
    api.post(f"/reminders/{cancelled['id']}/cancel")
    answer = client.get(feed_path(api))
    assert answer.headers["Content-Type"] == "text/calendar; charset=utf-8"
    found = icalendar.Calendar.from_ical(answer.content)
    weekly, once = sorted(found.events, key=lambda event: str(event["UID"]))
    assert weekly["SUMMARY"] == "Rest; END:VCALENDAR"
    assert weekly["DESCRIPTION"] == "One, two; three"
    assert weekly.start == datetime(2030, 3, 1, 19, tzinfo=ZoneInfo("Europe/Berlin"))
    assert weekly["RRULE"].to_ical() == b"FREQ=WEEKLY;BYDAY=FR"
    assert once.start == datetime(2031, 1, 1, tzinfo=UTC)
    assert [zone.tz_name for zone in found.timezones] == ["Europe/Berlin"]
    assert len(weekly.alarms.times) == 1


def test_feed_needs_the_current_secret(api: APIClient, client: Client, alice: User):
    old = feed_path(api)
    assert client.get(old).status_code == 200
    api.post("/reminders/preferences/rotate-secret", {"secret": "feed"})
    assert client.get(old).status_code == 404
    assert client.get(feed_path(api)).status_code == 200
    assert client.get("/reminders/feed/%00.ics").status_code == 404
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert client.get(feed_path(api)).status_code == 404


def test_feed_shows_the_next_time_when_a_rule_cannot_be_shown(api: APIClient, note: Note):
    odd = make_reminder(note, due_in=timedelta(hours=1), rrule="FREQ=YEARLY;BYMONTH=+2")
    url = api.get("/reminders/preferences").json()["feed_url"]
    answer = Client().get(url.removeprefix("http://localhost:8000"))
    assert answer.status_code == 200
    (event,) = icalendar.Calendar.from_ical(answer.content).walk("VEVENT")
    assert event.decoded("DTSTART") == odd.scheduled_at
    assert "RRULE" not in event


def test_feed_leaves_out_a_reminder_that_cannot_be_shown(note: Note):
    shown = make_reminder(note, rrule="FREQ=DAILY")
    odd = Reminder(note=note, updated_at=timezone.now(), time_zone="UTC")
    (event,) = Calendar.from_ical(calendar([odd, shown])).events
    assert str(event["UID"]).startswith(f"reminder-{shown.pk}@")


def test_feed_has_the_end_of_a_rule_in_utc(create: Post, api: APIClient, client: Client):
    """RFC 5545, 3.3.10: UNTIL is in UTC if the start has a time zone."""
    create(
        scheduled_at="2030-03-01T19:00:00+01:00",
        time_zone="Europe/Berlin",
        rrule="FREQ=DAILY;UNTIL=20300401T190000",
    )
    (event,) = icalendar.Calendar.from_ical(client.get(feed_path(api)).content).events
    assert event["RRULE"].to_ical() == b"FREQ=DAILY;UNTIL=20300401T170000Z"
