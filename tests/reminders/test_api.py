"""Reminders over HTTP: creating, listing, previewing, and what is rejected."""

from __future__ import annotations

from datetime import datetime, timedelta
from threading import Event

import pytest
from django.db import transaction
from django.utils import timezone
from rest_framework.test import APIClient

from notes.models import Note
from reminders.models import Reminder
from scribes.models import User
from tests.helpers.database import is_lock_awaited
from tests.helpers.factories import make_note, make_reminder
from tests.helpers.mail import MailServer
from tests.helpers.people import client_of
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually, run_concurrently
from tests.helpers.reminders import Post, deliver, in_hours

# --- Create ---------------------------------------------------------------------------------


def test_create_returns_the_reminder_as_stored(create: Post, api: APIClient, note: Note):
    due = (timezone.now() + timedelta(days=3)).replace(microsecond=0)
    created = create(scheduled_at=due.isoformat(), message="Read it again", channels=["in_app"])
    assert created["status"] == "pending"
    assert created["note_id"] == note.pk
    assert datetime.fromisoformat(created["scheduled_at"]) == due
    assert (created["message"], created["channels"]) == ("Read it again", ["in_app"])
    assert (created["rrule"], created["rule_description"], created["time_zone"]) == (
        "",
        None,
        "UTC",
    )
    assert (created["last_delivery"], created["error"]) == (None, "")
    assert [datetime.fromisoformat(moment) for moment in created["next"]] == [due]
    assert api.get(f"/reminders/{created['id']}").json() == created


def test_create_uses_the_users_zone_and_email_by_default(create: Post, alice: User):
    User.objects.filter(pk=alice.pk).update(time_zone="Asia/Tokyo")
    alice.refresh_from_db()
    created = create()
    assert (created["time_zone"], created["channels"]) == ("Asia/Tokyo", ["email"])
    assert created["next"][0].endswith("+09:00")


def test_create_lists_the_next_times_of_a_rule_in_its_zone(create: Post):
    created = create(
        scheduled_at="2027-03-20T19:00:00+01:00", rrule="FREQ=DAILY", time_zone="Europe/Berlin"
    )
    assert created["rule_description"] == "every day at 19:00"
    assert created["next"][0] == "2027-03-20T19:00:00+01:00"
    assert len(created["next"]) == 5
    assert {moment[11:19] for moment in created["next"]} == {"19:00:00"}


def test_create_moves_the_time_to_the_first_occurrence(create: Post):
    created = create(
        scheduled_at="2027-06-01T19:00:00+02:00",
        rrule="RRULE:FREQ=MONTHLY;BYDAY=-1SU",
        time_zone="Europe/Berlin",
    )
    assert created["scheduled_at"] == "2027-06-27T17:00:00Z"


def test_create_stores_the_id_of_its_request(create: Post):
    create()
    assert len(Reminder.objects.get().request_id) == 36


REJECTED = {
    "a time in the past": ({"scheduled_at": "2020-01-01T00:00:00Z"}, "scheduled_at", "in the past"),
    "a naive time": ({"scheduled_at": "2099-01-01T00:00:00"}, "scheduled_at", "offset from UTC"),
    "a naive date": ({"scheduled_at": "2030-01-01"}, "scheduled_at", ""),
    "a far time": ({"scheduled_at": "9999-12-31T23:59:59-12:00"}, "scheduled_at", ""),
    "the first year": ({"scheduled_at": "0001-01-01T00:00:00+14:00"}, "scheduled_at", ""),
    "no time": ({"scheduled_at": None}, "scheduled_at", "null"),
    "an unknown zone": ({"time_zone": "Mars/Olympus"}, "time_zone", "IANA"),
    "a path as zone": ({"time_zone": "../../etc/passwd"}, "time_zone", "IANA"),
    "an unknown channel": ({"channels": ["pigeon"]}, "channels.0", "valid choice"),
    "no channel": ({"channels": []}, "channels", "empty"),
    "a long message": ({"message": "x" * 2001}, "message", "2000"),
    "text as note": ({"note_id": "one"}, "note_id", ""),
    "half a note": ({"note_id": 1.5}, "note_id", "integer"),
    "a boolean as note": ({"note_id": True}, "note_id", "integer"),
    "a long rule": ({"rrule": "FREQ=DAILY;" + "BYDAY=MO," * 90}, "rrule", "500"),
}


@pytest.mark.parametrize(("fields", "param", "reason"), REJECTED.values(), ids=REJECTED.keys())
def test_create_rejects_invalid_fields_with_a_reason(
    api: APIClient, note: Note, fields, param: str, reason: str
):
    response = api.post("/reminders", {"note_id": note.pk, "scheduled_at": in_hours(1)} | fields)
    assert response.status_code == 400
    (error,) = response.json()["errors"]
    assert error["param"] == param
    assert reason in error["message"]
    assert not Reminder.objects.exists()


def test_create_rejects_a_number_that_is_too_large(api: APIClient, db: None):
    body = '{"note_id": 1e999, "scheduled_at": "2030-01-01T00:00:00Z"}'
    answer = api.post("/reminders", body, content_type="application/json")
    assert answer.status_code == 400
    assert "1e999 is too large" in answer.json()["detail"]


def test_foreign_note_is_404_like_a_missing_one(
    create: Post, api: APIClient, bobs_api: APIClient, note: Note, bob: User
):
    foreign = make_note(bob)
    created = create()
    answers = [
        bobs_api.post("/reminders", {"note_id": note.pk, "scheduled_at": in_hours(1)}),
        *(api.post("/reminders", {"note_id": n, "scheduled_at": in_hours(1)}) for n in (0, 10**30)),
        api.patch(f"/reminders/{created['id']}", {"note_id": foreign.pk}),
    ]
    assert {answer.status_code for answer in answers} == {404}
    (body,) = {answer.content for answer in answers}
    assert b"There is no such note." in body
    assert Reminder.objects.get().note_id == note.pk


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", ["post", "patch"])
def test_note_is_404_when_deleted_during_the_request(alice: User, note: Note, method: str):
    """It is deleted between validation and commit. The commit waits for the deletion."""
    other = make_note(alice, "Other")
    reminder = make_reminder(note, due_in=timedelta(hours=1))
    path = f"/reminders/{reminder.pk}" if method == "patch" else "/reminders"
    body = {"note_id": other.pk, "scheduled_at": in_hours(2)}
    held = Event()

    def write_or_delete(number: int) -> int:
        if number:
            held.wait(LONGEST_WAIT_SECONDS)
            return int(getattr(client_of(alice), method)(path, body).status_code)
        with transaction.atomic():
            other.delete()
            held.set()
            eventually(is_lock_awaited)
        return 0

    assert run_concurrently(2, write_or_delete) == [0, 404]
    assert Reminder.objects.get().note_id == note.pk


@pytest.mark.parametrize("until", ["00010101T000000Z", "99991231T235959Z"])
def test_preview_answers_for_an_end_at_the_calendars_edge(api: APIClient, note: Note, until: str):
    body = {
        "rrule": f"FREQ=DAILY;UNTIL={until}",
        "time_zone": "America/New_York",
        "scheduled_at": in_hours(24),
    }
    assert api.post("/reminders/preview", body).status_code in (200, 400)


# --- Limit ----------------------------------------------------------------------------------


def test_limit_rejects_a_reminder_until_another_one_ends(
    create: Post, api: APIClient, note: Note, settings
):
    settings.REMINDERS_PER_USER = 2
    sent = make_reminder(note, status="sent")
    first, _ = create(), create()
    body = {"note_id": note.pk, "scheduled_at": in_hours(1)}
    for path, data in (
        ("/reminders", body),
        (f"/reminders/{sent.pk}/snooze", {"minutes": 5}),
    ):
        answer = api.post(path, data)
        assert answer.status_code == 400
        assert "2 future reminders" in answer.json()["detail"]
    assert api.patch(f"/reminders/{sent.pk}", {"scheduled_at": in_hours(1)}).status_code == 400
    assert api.patch(f"/reminders/{first['id']}", {"scheduled_at": in_hours(2)}).status_code == 200
    assert api.post(f"/reminders/{first['id']}/snooze", {"minutes": 5}).status_code == 200
    api.post(f"/reminders/{first['id']}/cancel")
    assert api.post("/reminders", body).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_limit_holds_for_concurrent_requests(alice: User, note: Note, settings):
    settings.REMINDERS_PER_USER = 3
    body = {"note_id": note.pk, "scheduled_at": in_hours(1)}
    codes = run_concurrently(8, lambda n: client_of(alice).post("/reminders", body).status_code)
    assert sorted(codes) == [201] * 3 + [400] * 5


# --- Access ---------------------------------------------------------------------------------

CALLS = [
    ("get", ""),
    ("patch", ""),
    ("delete", ""),
    ("post", "/cancel"),
    ("post", "/snooze"),
    ("get", "/deliveries"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_foreign_and_missing_reminders_are_404(
    create: Post, api: APIClient, bobs_api: APIClient, method: str, path: str
):
    created = create()
    assert getattr(bobs_api, method)(f"/reminders/{created['id']}{path}", {}).status_code == 404
    assert getattr(api, method)(f"/reminders/{created['id'] + 1}{path}", {}).status_code == 404
    assert getattr(api, method)(f"/reminders/{10**30}{path}", {}).status_code == 404
    assert api.get(f"/reminders/{created['id']}").json() == created
    assert bobs_api.get("/reminders").json() == {"reminders": [], "total": 0}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/reminders"),
        ("post", "/reminders"),
        ("post", "/reminders/preview"),
        ("get", "/reminders/preferences"),
        ("post", "/reminders/preferences/rotate-secret"),
        ("get", "/notifications"),
        ("post", "/notifications/read-all"),
    ],
)
def test_endpoints_require_authentication(db: None, method: str, path: str):
    assert getattr(APIClient(), method)(path).status_code == 401


# --- List -----------------------------------------------------------------------------------


def test_list_is_filtered_and_paged(create: Post, api: APIClient, alice: User):
    other = make_note(alice, "Other")
    first, second = create(scheduled_at=in_hours(1)), create(scheduled_at=in_hours(2))
    third = create(scheduled_at=in_hours(3), note_id=other.pk)
    api.post(f"/reminders/{second['id']}/cancel")

    def ids(query: str) -> list[int]:
        body = api.get(f"/reminders?{query}").json()
        return [reminder["id"] for reminder in body["reminders"]]

    middle = second["scheduled_at"].replace("+", "%2B")
    assert ids("") == [first["id"], second["id"], third["id"]]
    assert ids("status=cancelled") == [second["id"]]
    assert ids(f"note_id={other.pk}") == [third["id"]]
    assert ids(f"due_before={middle}") == [first["id"]]
    assert ids(f"due_after={middle}") == [third["id"]]
    assert ids("limit=1&offset=1") == [second["id"]]
    assert api.get("/reminders?limit=1").json()["total"] == 3


@pytest.mark.parametrize(
    "query",
    [
        *("status=lost", "note_id=x", "note_id=99999999999999999999", "note_id=%00"),
        *("due_before=2030-01-01", "due_after=tomorrow", "limit=0"),
    ],
)
def test_list_rejects_invalid_filters(api: APIClient, query: str):
    assert api.get(f"/reminders?{query}").status_code == 400


def test_list_takes_four_queries_for_any_number_of_rows(
    create: Post, api: APIClient, mail: MailServer, note: Note, django_assert_max_num_queries
):
    for _ in range(10):
        deliver(make_reminder(note))
    with django_assert_max_num_queries(4):
        listed = api.get("/reminders").json()["reminders"]
    assert [reminder["last_delivery"]["status"] for reminder in listed] == ["sent"] * 10


# --- Preview --------------------------------------------------------------------------------


def test_preview_describes_a_rule_and_its_next_times(api: APIClient):
    body = {
        "rrule": "FREQ=MONTHLY;BYDAY=-1SU",
        "time_zone": "Europe/London",
        "scheduled_at": "2027-02-01T19:00:00Z",
    }
    assert api.post("/reminders/preview", body).json() == {
        "rule_description": "every month on the last Sunday at 19:00",
        "time_zone": "Europe/London",
        "next": [
            "2027-02-28T19:00:00Z",
            "2027-03-28T19:00:00+01:00",
            "2027-04-25T19:00:00+01:00",
            "2027-05-30T19:00:00+01:00",
            "2027-06-27T19:00:00+01:00",
        ],
    }
    assert not Reminder.objects.exists()


# --- Documentation --------------------------------------------------------------------------


def test_schema_has_every_path(client, db: None):
    paths = set(client.get("/schema", headers={"Accept": "application/json"}).json()["paths"])
    assert {
        "/reminders",
        "/reminders/{id}",
        "/reminders/{id}/cancel",
        "/reminders/{id}/snooze",
        "/reminders/{id}/deliveries",
        "/reminders/preview",
        "/reminders/preferences",
        "/reminders/preferences/rotate-secret",
        "/notifications",
        "/notifications/{id}/read",
        "/notifications/read-all",
    } <= paths
