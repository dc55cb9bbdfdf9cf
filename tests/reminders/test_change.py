"""Changing, cancelling, snoozing and deleting reminders over HTTP."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from threading import Event

import pytest
from django.db import transaction
from django.utils import timezone
from rest_framework.test import APIClient

from notes.models import Note
from reminders.models import Reminder
from reminders.sweep import sweep as sweep_at
from scribes.models import User
from tests.helpers.database import is_lock_awaited
from tests.helpers.factories import make_reminder
from tests.helpers.mail import MailServer
from tests.helpers.people import client_of
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually, run_concurrently
from tests.helpers.reminders import Post, deliver, in_hours, local_time, send, sweep

# --- Change ---------------------------------------------------------------------------------


def test_change_of_the_message_changes_nothing_else(create: Post, api: APIClient):
    created = create(rrule="FREQ=WEEKLY;COUNT=3")
    changed = api.patch(f"/reminders/{created['id']}", {"message": "New"}).json()
    assert changed["message"] == "New"
    untouched = created.keys() - {"message", "updated_at"}
    assert {key: changed[key] for key in untouched} == {key: created[key] for key in untouched}


def test_change_of_the_zone_keeps_the_clock_time(create: Post, api: APIClient):
    created = create(
        scheduled_at="2027-06-01T19:00:00+02:00", rrule="FREQ=DAILY", time_zone="Europe/Berlin"
    )
    changed = api.patch(f"/reminders/{created['id']}", {"time_zone": "America/New_York"}).json()
    assert changed["next"][0] == "2027-06-01T19:00:00-04:00"


def test_change_of_the_zone_is_400_when_that_time_is_past(api: APIClient, note: Note):
    reminder = make_reminder(note, due_in=timedelta(hours=1))
    answer = api.patch(f"/reminders/{reminder.pk}", {"time_zone": "Asia/Tokyo"})
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["param"] == "time_zone"
    assert error["message"] == "That time is already past in this time zone."


def test_change_removes_the_rule(create: Post, api: APIClient):
    created = create(rrule="FREQ=DAILY")
    changed = api.patch(f"/reminders/{created['id']}", {"rrule": ""}).json()
    assert (changed["rrule"], changed["next"]) == ("", created["next"][:1])
    assert changed["scheduled_at"] == created["scheduled_at"]


def test_change_removes_a_rule_that_has_fired_for_years(api: APIClient, note: Note):
    body = {"note_id": note.pk, "scheduled_at": in_hours(24), "rrule": "FREQ=DAILY"}
    reminder = api.post("/reminders", body).json()
    Reminder.objects.update(start_date=date(2020, 1, 1))  # it has fired for years
    answer = api.patch(f"/reminders/{reminder['id']}", {"rrule": ""})
    assert answer.status_code == 200
    assert answer.json()["rrule"] == ""
    assert answer.json()["scheduled_at"] == reminder["scheduled_at"]


def test_change_of_the_time_makes_a_sent_reminder_pending(
    api: APIClient, mail: MailServer, note: Note
):
    reminder = make_reminder(note)
    deliver(reminder)
    assert reminder.status == "sent"
    changed = api.patch(f"/reminders/{reminder.pk}", {"scheduled_at": in_hours(1)}).json()
    assert changed["status"] == "pending"
    assert len(mail.messages) == 1


def test_change_ignores_read_only_fields(create: Post, api: APIClient):
    created = create()
    api.patch(f"/reminders/{created['id']}", {"status": "sent", "id": 1, "user": 1, "error": "x"})
    assert api.get(f"/reminders/{created['id']}").json() == created


def test_change_of_the_time_cancels_pending_deliveries(api: APIClient, note: Note):
    reminder = make_reminder(note)
    sweep()
    assert reminder.deliveries.get().status == "pending"
    answer = api.patch(f"/reminders/{reminder.pk}", {"scheduled_at": in_hours(24)})
    assert answer.status_code == 200
    assert reminder.deliveries.get().status == "cancelled"


def test_change_of_the_zone_does_not_restart_the_count(create: Post, api: APIClient):
    created = create(scheduled_at=in_hours(24), rrule="FREQ=DAILY;COUNT=3")
    two_days_ago = date.fromisoformat(created["scheduled_at"][:10]) - timedelta(days=2)
    Reminder.objects.update(start_date=two_days_ago)  # it has fired twice
    changed = api.patch(f"/reminders/{created['id']}", {"time_zone": "Europe/Berlin"}).json()
    assert len(changed["next"]) == 1


def test_change_keeps_a_clock_time_that_one_night_skips(create: Post, api: APIClient):
    """02:30 does not exist on the last Sunday of March, but it stays the start of the rule."""
    created = create(
        scheduled_at="2035-01-10T02:30:00+01:00", rrule="FREQ=DAILY", time_zone="Europe/Berlin"
    )
    rule = {"rrule": "FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU"}
    changed = api.patch(f"/reminders/{created['id']}", rule).json()
    assert changed["next"][0][11:16] == "03:30"
    assert Reminder.objects.get().start_time.isoformat() == "02:30:00"


@pytest.mark.django_db(transaction=True)
def test_concurrent_changes_of_different_fields_all_count(alice: User, note: Note):
    reminder = make_reminder(note, due_in=timedelta(hours=1))
    changes = [{"message": "New"}, {"channels": ["in_app"]}, {"rrule": "FREQ=DAILY"}]
    url = f"/reminders/{reminder.pk}"
    codes = run_concurrently(3, lambda n: client_of(alice).patch(url, changes[n]).status_code)
    assert codes == [200] * 3
    reminder.refresh_from_db()
    assert (reminder.message, reminder.channels) == ("New", ["in_app"])
    assert reminder.rrule == "FREQ=DAILY"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [{"time_zone": "Asia/Tokyo"}, {"rrule": ""}])
def test_change_waits_for_a_sweep_and_uses_its_result(
    alice: User, note: Note, change: dict[str, str]
):
    """The change applies to the next time, not to the one that was just swept."""
    reminder = make_reminder(note, rrule="FREQ=DAILY", start_time="19:00")
    next_time = timezone.now().replace(hour=19, minute=0, second=0, microsecond=0) + timedelta(2)
    held = Event()

    def sweep_or_change(number: int) -> int:
        if number:
            held.wait(LONGEST_WAIT_SECONDS)
            return client_of(alice).patch(f"/reminders/{reminder.pk}", change).status_code
        with transaction.atomic():
            assert sweep_at(next_time - timedelta(days=1)) == 1
            held.set()
            eventually(is_lock_awaited)
        return 0

    assert run_concurrently(2, sweep_or_change) == [0, 200]
    reminder.refresh_from_db()
    assert change.items() <= vars(reminder).items()
    assert reminder.status == "pending"
    assert reminder.scheduled_at.astimezone(reminder.zone).hour == 19
    assert "time_zone" in change or reminder.scheduled_at == next_time


# --- Delete ---------------------------------------------------------------------------------


def test_delete_removes_the_reminder(create: Post, api: APIClient):
    created = create()
    assert api.delete(f"/reminders/{created['id']}").status_code == 204
    assert api.get(f"/reminders/{created['id']}").status_code == 404
    assert api.put(f"/reminders/{created['id']}", {}).status_code == 405


def test_reminders_are_deleted_with_their_note(create: Post, api: APIClient, note: Note):
    created = create()
    api.delete(f"/notes/{note.pk}")
    assert api.get(f"/reminders/{created['id']}").status_code == 404


# --- Cancel and snooze ----------------------------------------------------------------------


def test_cancelled_reminder_is_never_sent(api: APIClient, mail: MailServer, note: Note):
    reminder = make_reminder(note)
    answer = api.post(f"/reminders/{reminder.pk}/cancel")
    assert answer.status_code == 200, answer.content
    assert answer.json()["status"] == "cancelled"
    assert answer.json()["next"] == []
    assert api.post(f"/reminders/{reminder.pk}/cancel").status_code == 409
    assert api.post(f"/reminders/{reminder.pk}/snooze", {"minutes": 5}).status_code == 409
    assert sweep() == 0
    send()
    assert mail.messages == []


def test_snooze_takes_minutes_or_a_time(create: Post, api: APIClient):
    created = create()
    answer = api.post(f"/reminders/{created['id']}/snooze", {"minutes": 90}).json()
    distance = datetime.fromisoformat(answer["scheduled_at"]) - datetime.now(UTC)
    assert timedelta(minutes=89) < distance <= timedelta(minutes=90)
    until = in_hours(30)[:19] + "Z"
    answer = api.post(f"/reminders/{created['id']}/snooze", {"until": until}).json()
    assert answer["scheduled_at"] == until


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"minutes": 0}, {"minutes": 10**9}, {"minutes": "x"}),
        *({"until": "2020-01-01T00:00:00Z"}, {"until": in_hours(1)[:19]}),
        {"minutes": 5, "until": in_hours(1)},
    ],
)
def test_snooze_rejects_invalid_times(create: Post, api: APIClient, body):
    created = create()
    assert api.post(f"/reminders/{created['id']}/snooze", body).status_code == 400


def test_snooze_keeps_the_rule(create: Post, api: APIClient):
    created = create(rrule="FREQ=DAILY")
    answer = api.post(f"/reminders/{created['id']}/snooze", {"minutes": 30}).json()
    assert answer["next"][1:] == created["next"][:4]
    assert local_time(answer["next"][0]) < local_time(created["next"][0])
