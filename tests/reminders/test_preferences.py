"""Quiet hours, and the preferences over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from threading import Event
from zoneinfo import ZoneInfo

import pytest
from django.db import transaction
from django.utils import timezone
from rest_framework.test import APIClient

from notes.models import Note
from reminders.models import Notification, ReminderPreferences
from scribes.models import User
from tests.helpers.database import is_lock_awaited
from tests.helpers.factories import make_reminder
from tests.helpers.mail import MailServer, WebServer
from tests.helpers.people import client_of
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually, run_concurrently
from tests.helpers.reminders import Prefer, retry, send, sweep

BERLIN = ZoneInfo("Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# --- Quiet hours ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-23T20:59", "2026-11-23T20:59"),
        ("2026-11-23T21:00", "2026-11-24T06:00"),
        ("2026-11-24T02:00", "2026-11-24T06:00"),
        ("2026-11-24T06:00", "2026-11-24T06:00"),
        ("2026-03-28T23:00", "2026-03-29T05:00"),
        ("2026-10-24T23:00", "2026-10-25T06:00"),
        ("2026-11-23T06:01", "2026-11-23T06:01"),
    ],
)
def test_quiet_hours_span_midnight_and_clock_changes(now: str, expected: str):
    """From 22:00 to 07:00 in Berlin. The times in the table are UTC."""
    night = ReminderPreferences(quiet_from=time(22), quiet_until=time(7))
    assert night.after_quiet_hours(utc(now), BERLIN) == utc(expected)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-10-24T23:59", "2026-10-25T00:30"),
        ("2026-10-25T00:10", "2026-10-25T00:30"),
        ("2026-10-25T00:30", "2026-10-25T00:30"),
        ("2026-10-25T01:10", "2026-10-25T01:10"),
        ("2026-10-26T01:10", "2026-10-26T01:30"),
        ("2026-03-29T00:59", "2026-03-29T01:30"),
    ],
)
def test_quiet_hours_end_at_the_first_of_two_equal_times(now: str, expected: str):
    """Until 02:30 in Berlin. On 25 October, clocks show that time twice, first at 00:30 UTC. On
    29 March they never show it."""
    night = ReminderPreferences(quiet_from=time(22), quiet_until=time(2, 30))
    assert night.after_quiet_hours(utc(now), BERLIN) == utc(expected)


def test_quiet_hours_within_one_day():
    noon = ReminderPreferences(quiet_from=time(12), quiet_until=time(13))
    assert noon.after_quiet_hours(utc("2026-11-23T12:30"), ZoneInfo("UTC")) == utc(
        "2026-11-23T13:00"
    )
    assert noon.after_quiet_hours(utc("2026-11-23T13:00"), ZoneInfo("UTC")) == utc(
        "2026-11-23T13:00"
    )


def test_quiet_hours_hold_back_email_but_not_in_app(
    mail: MailServer, alice: User, note: Note, prefer: Prefer
):
    now = timezone.now()
    edges = [(now + timedelta(hours=hours)).time() for hours in (-2, 2)]
    prefer(alice, quiet_from=edges[0], quiet_until=edges[1])
    reminder = make_reminder(note, channels=["email", "in_app"])
    due = reminder.scheduled_at
    sweep()
    send()
    waiting = reminder.deliveries.get(channel="email")
    assert waiting.status == "pending"
    assert abs(waiting.next_attempt_at - timezone.now() - timedelta(hours=2)) < timedelta(minutes=1)
    assert (waiting.occurrence_at, waiting.dispatched_at) == (due, None)
    assert (Notification.objects.count(), mail.messages) == (1, [])
    assert retry(waiting).status == "sent"


def test_quiet_hours_hold_back_webhooks(hook: WebServer, alice: User, note: Note, prefer: Prefer):
    now = timezone.now()
    edges = [(now + timedelta(hours=hours)).time() for hours in (-2, 2)]
    prefer(alice, quiet_from=edges[0], quiet_until=edges[1], webhook_url=hook.url)
    reminder = make_reminder(note, channels=["webhook"])
    sweep()
    send()
    assert hook.requests == []
    assert reminder.deliveries.get().next_attempt_at > now + timedelta(hours=1)


# --- Over HTTP ------------------------------------------------------------------------------


def test_preferences_belong_to_one_user(api: APIClient, bobs_api: APIClient):
    hours = {"quiet_from": "22:00:00", "quiet_until": "07:00:00", "digest_at": "06:30:00"}
    mine = api.patch("/reminders/preferences", hours).json()
    assert hours.items() <= mine.items()
    assert mine["webhook_secret"].startswith("whsec_")
    bobs = bobs_api.get("/reminders/preferences").json()
    assert bobs["quiet_from"] is None
    assert bobs["feed_url"] != mine["feed_url"]
    assert bobs["webhook_secret"] != mine["webhook_secret"]
    assert api.patch("/reminders/preferences", {"digest_at": None}).json()["digest_at"] is None


@pytest.mark.parametrize(
    "body",
    [{"quiet_from": "22:00"}, {"quiet_until": "25:00"}, {"digest_at": "noon"}, {"quiet_from": 7}],
)
def test_preferences_reject_invalid_times(api: APIClient, body):
    assert api.patch("/reminders/preferences", body).status_code == 400


def test_secrets_cannot_be_chosen_by_the_user(api: APIClient):
    before = api.get("/reminders/preferences").json()
    api.patch("/reminders/preferences", {"webhook_secret": "x", "feed_url": "x"})
    assert api.get("/reminders/preferences").json() == before
    assert (
        api.post("/reminders/preferences/rotate-secret", {"secret": "everything"}).status_code
        == 400
    )


@pytest.mark.django_db(transaction=True)
def test_change_does_not_restore_an_old_secret(api: APIClient, alice: User):
    """The change begins while the secret is being rotated."""
    old = api.get("/reminders/preferences").json()["webhook_secret"]
    held = Event()

    def rotate_or_change(number: int) -> str:
        if number:
            held.wait(LONGEST_WAIT_SECONDS)
            answer = client_of(alice).patch("/reminders/preferences", {"digest_at": "07:00"})
            return str(answer.json()["webhook_secret"])
        with transaction.atomic():
            preferences = ReminderPreferences.for_user(alice)
            preferences.rotate_secret("webhook")
            held.set()
            eventually(is_lock_awaited)
        return preferences.webhook_secret

    rotated, answered = run_concurrently(2, rotate_or_change)
    now = ReminderPreferences.for_user(alice)
    assert old != rotated == answered == now.webhook_secret
    assert now.digest_at == time(7)
