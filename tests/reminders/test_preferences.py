"""Quiet hours, the daily digest, the calendar feed and notifications."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from threading import Event
from zoneinfo import ZoneInfo

import icalendar
import pytest
from django.db import transaction
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from notes.models import Note
from reminders.feed import calendar
from reminders.models import Delivery, Notification, Reminder, ReminderPreferences
from reminders.sending import release_expired
from reminders.sweep import sweep as sweep_at
from scribes.models import User
from tests.conftest import client_of
from tests.mail import MailServer, body
from tests.processes import at_once, eventually
from tests.reminders.conftest import (
    Post,
    again,
    deliver,
    make_reminder,
    send,
    somebody_waits_for_a_lock,
    sweep,
)

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
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
def test_over_midnight_and_changes_of_clocks(now: str, expected: str):
    """22:00 to 07:00 in Berlin; times here are UTC."""
    night = ReminderPreferences(quiet_from=time(22), quiet_until=time(7))
    assert night.after_quiet_hours(at(now), BERLIN) == at(expected)


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
def test_an_end_that_clocks_show_twice_is_the_first(now: str, expected: str):
    """Until 02:30 in Berlin. On 25 October that is at 00:30 UTC, and clocks show 02:10 twice; on
    29 March there is no 02:30."""
    night = ReminderPreferences(quiet_from=time(22), quiet_until=time(2, 30))
    assert night.after_quiet_hours(at(now), BERLIN) == at(expected)


def test_within_a_day():
    noon = ReminderPreferences(quiet_from=time(12), quiet_until=time(13))
    assert noon.after_quiet_hours(at("2026-11-23T12:30"), ZoneInfo("UTC")) == at("2026-11-23T13:00")
    assert noon.after_quiet_hours(at("2026-11-23T13:00"), ZoneInfo("UTC")) == at("2026-11-23T13:00")


def quiet_now(user: User) -> None:
    now = timezone.now()
    edges = [(now + timedelta(hours=hours)).time() for hours in (-2, 2)]
    ReminderPreferences.objects.create(user=user, quiet_from=edges[0], quiet_until=edges[1])


def test_e_mail_waits_and_the_app_does_not(mail: MailServer, alice: User, note: Note):
    quiet_now(alice)
    reminder = make_reminder(note, channels=["email", "in_app"])
    due = reminder.scheduled_at
    sweep()
    send()
    waiting = reminder.deliveries.get(channel="email")
    assert waiting.status == "pending"
    assert abs(waiting.next_attempt_at - timezone.now() - timedelta(hours=2)) < timedelta(minutes=1)
    assert (waiting.occurrence_at, waiting.dispatched_at) == (due, None)
    assert (Notification.objects.count(), mail.messages) == (1, [])
    assert again(waiting).status == "sent"


# --- Digest ---------------------------------------------------------------------------------


def test_one_mail_a_day_for_all(mail: MailServer, alice: User, note: Note):
    ReminderPreferences.objects.create(user=alice, digest_at=time(7))
    titles = ["One", "Two", "Three"]
    for title in titles:
        make_reminder(Note.objects.create(user=alice, title=title))
    sweep()
    send()
    assert mail.messages == []
    Delivery.objects.update(next_attempt_at=timezone.now())
    send()
    (message,) = mail.messages
    assert message["Subject"] == "3 reminders"
    assert all(title in body(message) for title in titles)
    assert set(Delivery.objects.values_list("status", "attempts")) == {("sent", 1)}
    assert set(alice.reminders.values_list("status", flat=True)) == {"sent"}


def test_a_digest_that_failed_comes_again_as_the_same_mail(
    mail: MailServer, alice: User, note: Note
):
    ReminderPreferences.objects.create(user=alice, digest_at=time(7))
    make_reminder(note)
    make_reminder(note)
    sweep()
    seen = []

    def answer(message):
        seen.append(message["Message-ID"])
        return "451 Later" if len(seen) == 1 else "250 OK"

    mail.answer = answer
    for _ in range(2):
        Delivery.objects.update(next_attempt_at=timezone.now())
        send()
    assert len(seen) == 2
    assert len(set(seen)) == 1
    assert len(mail.messages) == 1


def fail_once(mail: MailServer) -> list[str]:
    """The server is busy at the first message of each Message-ID; all those it saw."""
    seen: list[str] = []

    def answer(message):
        seen.append(message["Message-ID"])
        return "451 Later" if seen.count(seen[-1]) == 1 else "250 OK"

    mail.answer = answer
    return seen


def send_now() -> None:
    Delivery.objects.pending().update(next_attempt_at=timezone.now())
    send()


def test_a_digest_stays_the_same_mail_whatever_is_withdrawn_from_it(
    mail: MailServer, alice: User, note: Note
):
    """The first attempt may have arrived: then the second must be known for what it is."""
    ReminderPreferences.objects.create(user=alice, digest_at=time(7))
    cancelled, snoozed, kept = (make_reminder(note, message=text) for text in ("One", "Two", "Six"))
    seen = fail_once(mail)
    sweep()
    send_now()
    cancelled.cancel()
    snoozed.snooze(timezone.now() + timedelta(hours=1))
    send_now()
    (message,) = mail.messages
    assert seen == [message["Message-ID"]] * 2
    assert "Six" in body(message)
    assert "One" not in body(message)
    assert kept.deliveries.get().status == "sent"


def test_what_joins_a_digest_late_comes_in_a_mail_of_its_own(
    mail: MailServer, alice: User, note: Note
):
    """Under the first one's Message-ID it might be thrown away as a copy."""
    ReminderPreferences.objects.create(user=alice, digest_at=time(7))
    make_reminder(note)
    make_reminder(note)
    seen = fail_once(mail)
    sweep()
    send_now()
    make_reminder(note)
    sweep()
    send_now()
    send_now()
    assert len(seen) == 4
    assert len(set(seen)) == 2
    assert sorted(message["Subject"] for message in mail.messages) == [
        *("2 reminders", "Reminder: Rest"),
    ]


def test_a_long_digest_comes_in_several_mails(
    mail: MailServer, alice: User, note: Note, monkeypatch
):
    monkeypatch.setattr("reminders.models.DIGEST_MAX_REMINDERS", 2)
    ReminderPreferences.objects.create(user=alice, digest_at=time(7))
    for _ in range(5):
        make_reminder(note)
    sweep()
    send_now()
    assert len(mail.messages) == len(mail.copies()) == 3
    assert set(Delivery.objects.values_list("status", "attempts")) == {("sent", 1)}


@pytest.mark.django_db(transaction=True)
def test_the_digest_of_a_dead_process_comes_back_as_one(alice: User, note: Note):
    """While the release of its second reminder waits, the first one is not sent alone."""
    ReminderPreferences.objects.create(user=alice, digest_at=time(7))
    reminders = [make_reminder(note) for _ in range(2)]
    sweep()
    Delivery.objects.update(next_attempt_at=timezone.now())
    claimed = Delivery.claim(Delivery.objects.earliest("pk"))
    assert len(claimed) == 2
    Delivery.objects.update(lease_expires_at=timezone.now())
    held = Event()

    def hold_or_release(number: int) -> set[str]:
        if number:
            held.wait(10)
            release_expired()
        else:
            with transaction.atomic():
                Reminder.objects.select_for_update(no_key=True).get(pk=reminders[1].pk)
                held.set()
                eventually(somebody_waits_for_a_lock, timeout=20)
                return set(Delivery.objects.values_list("status", flat=True))
        return set(Delivery.objects.values_list("status", flat=True))

    assert at_once(2, hold_or_release) == [{"sending"}, {"pending"}]
    assert len(set(Delivery.objects.values_list("digest", flat=True))) == 1


def test_whose_digest_it_is(mail: MailServer, alice: User, bob: User, note: Note):
    for user in (alice, bob):
        ReminderPreferences.objects.create(user=user, digest_at=time(7))
        for _ in range(2):
            make_reminder(Note.objects.create(user=user, title=f"Of {user.email}"))
    now = timezone.now()
    sweep_at(now)
    sweep_at(now + timedelta(days=1))
    Delivery.objects.update(next_attempt_at=timezone.now())
    send()
    assert sorted(message["To"] for message in mail.messages) == [alice.email, bob.email]
    for message in mail.messages:
        other = bob.email if message["To"] == alice.email else alice.email
        assert other not in body(message)


def test_the_next_digest():
    preferences = ReminderPreferences(user_id=1, digest_at=time(7))
    for now, expected in [
        ("2026-11-23T05:59", "2026-11-23T06:00"),
        ("2026-11-23T06:00", "2026-11-24T06:00"),
        ("2026-03-28T12:00", "2026-03-29T05:00"),
    ]:
        digest = preferences.next_digest(at(now), BERLIN)
        assert digest is not None
        assert digest[1] == at(expected)


def test_what_is_due_just_before_the_digest_goes_with_it(note: Note):
    """The sweep that finds it comes a moment later than the digest's own time."""
    due = timezone.now().replace(hour=7, minute=0, second=0, microsecond=0) + timedelta(days=1)
    ReminderPreferences.objects.create(user=note.user, digest_at=time(7))
    make_reminder(note, scheduled_at=due - timedelta(minutes=10))
    sweep_at(due + timedelta(seconds=1))
    delivery = Delivery.objects.get()
    assert delivery.next_attempt_at == due


# --- Over HTTP ------------------------------------------------------------------------------


def test_preferences_are_each_users_own(api: APIClient, bobs_api: APIClient):
    hours = {"quiet_from": "22:00:00", "quiet_until": "07:00:00", "digest_at": "06:30:00"}
    mine = api.patch("/reminders/preferences", hours).json()
    assert hours.items() <= mine.items()
    assert mine["webhook_secret"].startswith("whsec_")
    his = bobs_api.get("/reminders/preferences").json()
    assert his["quiet_from"] is None
    assert his["feed_url"] != mine["feed_url"]
    assert his["webhook_secret"] != mine["webhook_secret"]
    assert api.patch("/reminders/preferences", {"digest_at": None}).json()["digest_at"] is None


@pytest.mark.parametrize(
    "body",
    [{"quiet_from": "22:00"}, {"quiet_until": "25:00"}, {"digest_at": "noon"}, {"quiet_from": 7}],
)
def test_wrong_preferences_are_400(api: APIClient, body):
    assert api.patch("/reminders/preferences", body).status_code == 400


def test_secrets_are_not_for_the_user_to_choose(api: APIClient):
    before = api.get("/reminders/preferences").json()
    api.patch("/reminders/preferences", {"webhook_secret": "x", "feed_url": "x"})
    assert api.get("/reminders/preferences").json() == before
    assert api.post("/reminders/preferences/renew", {"of": "everything"}).status_code == 400


@pytest.mark.django_db(transaction=True)
def test_a_change_brings_no_old_secret_back(api: APIClient, alice: User):
    """It begins while the secret is being renewed."""
    old = api.get("/reminders/preferences").json()["webhook_secret"]
    held = Event()

    def renew_or_change(number: int) -> str:
        if number:
            held.wait(10)
            answer = client_of(alice).patch("/reminders/preferences", {"digest_at": "07:00"})
            return str(answer.json()["webhook_secret"])
        with transaction.atomic():
            preferences = ReminderPreferences.of(alice)
            preferences.renew("webhook")
            held.set()
            eventually(somebody_waits_for_a_lock, timeout=20)
        return preferences.webhook_secret

    renewed, told = at_once(2, renew_or_change)
    now = ReminderPreferences.of(alice)
    assert old != renewed == told == now.webhook_secret
    assert now.digest_at == time(7)


# --- Feed -----------------------------------------------------------------------------------


def feed_path(api: APIClient) -> str:
    url: str = api.get("/reminders/preferences").json()["feed_url"]
    return url.removeprefix("http://localhost:8000")


def test_the_feed_has_what_is_pending(create: Post, api: APIClient, client: Client, note: Note):
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
    assert weekly.start == datetime(2030, 3, 1, 19, tzinfo=BERLIN)
    assert weekly["RRULE"].to_ical() == b"FREQ=WEEKLY;BYDAY=FR"
    assert once.start == datetime(2031, 1, 1, tzinfo=UTC)
    assert [zone.tz_name for zone in found.timezones] == ["Europe/Berlin"]
    assert len(weekly.alarms.times) == 1


def test_only_who_knows_the_secret_reads_the_feed(api: APIClient, client: Client, alice: User):
    old = feed_path(api)
    assert client.get(old).status_code == 200
    api.post("/reminders/preferences/renew", {"of": "feed"})
    assert client.get(old).status_code == 404
    assert client.get(feed_path(api)).status_code == 200
    assert client.get("/reminders/feed/%00.ics").status_code == 404
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert client.get(feed_path(api)).status_code == 404


# --- Notifications --------------------------------------------------------------------------


@pytest.fixture
def notified(note: Note) -> list[int]:
    for _ in range(3):
        deliver(make_reminder(note, channels=["in_app"], message="Now"))
    return list(Notification.objects.values_list("pk", flat=True))


def test_notifications_are_listed_and_read(notified: list[int], api: APIClient):
    page = api.get("/notifications").json()
    assert [each["id"] for each in page["notifications"]] == notified
    assert page["notifications"][0]["title"] == "Rest"
    first = api.post(f"/notifications/{notified[0]}/read").json()
    assert first["read_at"] is not None
    assert api.post(f"/notifications/{notified[0]}/read").json() == first
    assert api.get("/notifications?unread=true").json()["total"] == 2
    assert api.get("/notifications?unread=false").json()["total"] == 1
    assert api.post("/notifications/read-all").json() == {"read": 2}
    assert api.post("/notifications/read-all").json() == {"read": 0}


def test_nobody_elses_notifications(notified: list[int], api: APIClient, bobs_api: APIClient):
    assert bobs_api.get("/notifications").json()["total"] == 0
    assert bobs_api.post(f"/notifications/{notified[0]}/read").status_code == 404
    assert bobs_api.post("/notifications/read-all").json() == {"read": 0}
    assert api.get("/notifications?unread=true").json()["total"] == 3
    assert api.get("/notifications?unread=x").status_code == 400


def test_a_notification_outlives_its_reminder(notified: list[int], api: APIClient, note: Note):
    note.delete()
    assert api.get("/notifications").json()["total"] == 3


# --- What came of it ------------------------------------------------------------------------


def test_deliveries_tell_each_attempt_and_its_reason(mail: MailServer, api: APIClient, note: Note):
    mail.answer = lambda message: "451 Greylisted"
    reminder = make_reminder(note)
    delivery = deliver(reminder)
    mail.answer = lambda message: "250 OK"
    again(delivery)
    page = api.get(f"/reminders/{reminder.pk}/deliveries").json()
    (told,) = page["deliveries"]
    assert page["total"] == 1
    assert (told["channel"], told["status"], told["attempts"]) == ("email", "sent", 2)
    assert told["lateness_seconds"] > 0
    reasons = [(each["outcome"], each["reason"]) for each in told["log"]]
    assert reasons == [("postponed", "SMTP 451: Greylisted"), ("sent", "")]
    last = api.get(f"/reminders/{reminder.pk}").json()["last_delivery"]
    assert (last["status"], last["is_late"]) == ("sent", False)


def test_the_admin_shows_reminders_with_their_deliveries(
    mail: MailServer, admin_client: Client, note: Note
):
    reminder = make_reminder(note)
    mail.answer = lambda message: "554 <b>Never</b>"
    delivery = deliver(reminder)
    listed = admin_client.get("/admin/reminders/reminder/").content.decode()
    assert "Rest" in listed
    page = admin_client.get(f"/admin/reminders/reminder/{reminder.pk}/change/").content.decode()
    assert "SMTP 554: &lt;b&gt;Never&lt;/b&gt;" in page
    assert "failed for good" in page
    page = admin_client.get(f"/admin/reminders/delivery/{delivery.pk}/change/").content.decode()
    assert "e-mail" in page
    assert admin_client.get("/admin/reminders/delivery/?q=%00").status_code in (200, 302)
    assert admin_client.get("/admin/reminders/reminder/add/").status_code == 403


def test_a_rule_that_cannot_be_written_does_not_break_the_feed(api: APIClient, note: Note):
    odd = make_reminder(note, due_in=timedelta(hours=1), rrule="FREQ=YEARLY;BYMONTH=+2")
    url = api.get("/reminders/preferences").json()["feed_url"]
    answer = Client().get(url.removeprefix("http://localhost:8000"))
    assert answer.status_code == 200
    (event,) = icalendar.Calendar.from_ical(answer.content).walk("VEVENT")
    assert event.decoded("DTSTART") == odd.scheduled_at
    assert "RRULE" not in event


def test_a_reminder_that_cannot_be_shown_leaves_the_others_in_the_feed(note: Note):
    shown = make_reminder(note, rrule="FREQ=DAILY")
    odd = Reminder(note=note, updated_at=timezone.now(), time_zone="UTC")
    (event,) = calendar([odd, shown]).events
    assert str(event["UID"]).startswith(f"reminder-{shown.pk}@")


def test_in_the_feed_a_rule_ends_at_an_instant(create: Post, api: APIClient, client: Client):
    """RFC 5545, 3.3.10: in UTC, where the start has a zone."""
    create(
        scheduled_at="2030-03-01T19:00:00+01:00",
        time_zone="Europe/Berlin",
        rrule="FREQ=DAILY;UNTIL=20300401T190000",
    )
    (event,) = icalendar.Calendar.from_ical(client.get(feed_path(api)).content).events
    assert event["RRULE"].to_ical() == b"FREQ=DAILY;UNTIL=20300401T170000Z"
