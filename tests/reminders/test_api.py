"""Reminders over HTTP: what is accepted, what is refused and why, and that nobody sees another's."""

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
from tests.conftest import client_of
from tests.processes import at_once, eventually
from tests.reminders.conftest import (
    Post,
    deliver,
    in_hours,
    local,
    make_reminder,
    somebody_waits_for_a_lock,
    sweep,
)


def test_a_reminder_comes_back_as_it_went_in(create: Post, api: APIClient, note: Note):
    due = (timezone.now() + timedelta(days=3)).replace(microsecond=0)
    made = create(scheduled_at=due.isoformat(), message="Read it again", channels=["in_app"])
    assert made["status"] == "pending"
    assert made["note_id"] == note.pk
    assert datetime.fromisoformat(made["scheduled_at"]) == due
    assert (made["message"], made["channels"]) == ("Read it again", ["in_app"])
    assert (made["rrule"], made["rule_in_words"], made["time_zone"]) == ("", None, "UTC")
    assert (made["last_delivery"], made["error"]) == (None, "")
    assert [datetime.fromisoformat(moment) for moment in made["next"]] == [due]
    assert api.get(f"/reminders/{made['id']}").json() == made


def test_without_a_zone_or_channels_they_are_the_users_zone_and_e_mail(create: Post, alice: User):
    User.objects.filter(pk=alice.pk).update(time_zone="Asia/Tokyo")
    alice.refresh_from_db()
    made = create()
    assert (made["time_zone"], made["channels"]) == ("Asia/Tokyo", ["email"])
    assert made["next"][0].endswith("+09:00")


def test_a_rule_tells_its_next_times_in_its_zone(create: Post):
    made = create(
        scheduled_at="2027-03-20T19:00:00+01:00", rrule="FREQ=DAILY", time_zone="Europe/Berlin"
    )
    assert made["rule_in_words"] == "every day at 19:00"
    assert made["next"][0] == "2027-03-20T19:00:00+01:00"
    assert len(made["next"]) == 5
    assert {moment[11:19] for moment in made["next"]} == {"19:00:00"}


def test_the_first_time_is_moved_to_where_the_rule_fires(create: Post):
    made = create(
        scheduled_at="2027-06-01T19:00:00+02:00",
        rrule="RRULE:FREQ=MONTHLY;BYDAY=-1SU",
        time_zone="Europe/Berlin",
    )
    assert made["scheduled_at"] == "2027-06-27T17:00:00Z"


REFUSED = {
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
    "no number as note": ({"note_id": "one"}, "note_id", ""),
    "half a note": ({"note_id": 1.5}, "note_id", "integer"),
    "true as note": ({"note_id": True}, "note_id", "integer"),
    "a rule without end": ({"rrule": "FREQ=DAILY;" + "BYDAY=MO," * 90}, "rrule", "500"),
}


@pytest.mark.parametrize(("fields", "param", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_and_why(api: APIClient, note: Note, fields, param: str, reason: str):
    response = api.post("/reminders", {"note_id": note.pk, "scheduled_at": in_hours(1)} | fields)
    assert response.status_code == 400
    (error,) = response.json()["errors"]
    assert error["param"] == param
    assert reason in error["message"]
    assert not Reminder.objects.exists()


def test_another_users_note_is_as_missing_as_one_that_never_was(
    create: Post, api: APIClient, bobs_api: APIClient, note: Note, bob: User
):
    his = Note.objects.create(user=bob, title="His")
    made = create()
    answers = [
        bobs_api.post("/reminders", {"note_id": note.pk, "scheduled_at": in_hours(1)}),
        *(api.post("/reminders", {"note_id": n, "scheduled_at": in_hours(1)}) for n in (0, 10**30)),
        api.patch(f"/reminders/{made['id']}", {"note_id": his.pk}),
    ]
    assert {answer.status_code for answer in answers} == {404}
    (told,) = {answer.content for answer in answers}
    assert b"There is no such note." in told
    assert Reminder.objects.get().note_id == note.pk


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", ["post", "patch"])
def test_a_note_that_is_deleted_meanwhile_is_missing(alice: User, note: Note, method: str):
    """Between the look for it and the commit, which waits for the deletion."""
    other = Note.objects.create(user=alice, title="Other")
    made = make_reminder(note, due_in=timedelta(hours=1))
    path = f"/reminders/{made.pk}" if method == "patch" else "/reminders"
    body = {"note_id": other.pk, "scheduled_at": in_hours(2)}
    held = Event()

    def write_or_delete(number: int) -> int:
        if number:
            held.wait(10)
            return int(getattr(client_of(alice), method)(path, body).status_code)
        with transaction.atomic():
            other.delete()
            held.set()
            eventually(somebody_waits_for_a_lock, timeout=20)
        return 0

    assert at_once(2, write_or_delete) == [0, 404]
    assert Reminder.objects.get().note_id == note.pk


def test_a_number_beyond_all_numbers_is_a_400(api: APIClient, db: None):
    body = '{"note_id": 1e999, "scheduled_at": "2030-01-01T00:00:00Z"}'
    answer = api.post("/reminders", body, content_type="application/json")
    assert answer.status_code == 400
    assert "1e999 is too large" in answer.json()["detail"]


# --- How many -------------------------------------------------------------------------------


def test_one_too_many_is_refused_until_one_is_gone(
    create: Post, api: APIClient, note: Note, settings
):
    settings.REMINDERS_PER_USER = 2
    sent = make_reminder(note, status="sent")
    first, _ = create(), create()
    body = {"note_id": note.pk, "scheduled_at": in_hours(1)}
    for path, more in (
        ("/reminders", body),
        (f"/reminders/{sent.pk}/snooze", {"minutes": 5}),
    ):
        answer = api.post(path, more)
        assert answer.status_code == 400
        assert "2 reminders to come" in answer.json()["detail"]
    assert api.patch(f"/reminders/{sent.pk}", {"scheduled_at": in_hours(1)}).status_code == 400
    assert api.patch(f"/reminders/{first['id']}", {"scheduled_at": in_hours(2)}).status_code == 200
    assert api.post(f"/reminders/{first['id']}/snooze", {"minutes": 5}).status_code == 200
    api.post(f"/reminders/{first['id']}/cancel")
    assert api.post("/reminders", body).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_the_limit_is_one_for_requests_at_once(alice: User, note: Note, settings):
    settings.REMINDERS_PER_USER = 3
    body = {"note_id": note.pk, "scheduled_at": in_hours(1)}
    codes = at_once(8, lambda n: client_of(alice).post("/reminders", body).status_code)
    assert sorted(codes) == [201] * 3 + [400] * 5


CALLS = [
    ("get", ""),
    ("patch", ""),
    ("delete", ""),
    ("post", "/cancel"),
    ("post", "/snooze"),
    ("get", "/deliveries"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_foreign_and_missing_are_404(
    create: Post, api: APIClient, bobs_api: APIClient, method: str, path: str
):
    made = create()
    assert getattr(bobs_api, method)(f"/reminders/{made['id']}{path}", {}).status_code == 404
    assert getattr(api, method)(f"/reminders/{made['id'] + 1}{path}", {}).status_code == 404
    assert getattr(api, method)(f"/reminders/{10**30}{path}", {}).status_code == 404
    assert api.get(f"/reminders/{made['id']}").json() == made
    assert bobs_api.get("/reminders").json() == {"reminders": [], "total": 0}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/reminders"),
        ("post", "/reminders"),
        ("post", "/reminders/preview"),
        ("get", "/reminders/preferences"),
        ("post", "/reminders/preferences/renew"),
        ("get", "/notifications"),
        ("post", "/notifications/read-all"),
    ],
)
def test_nobody_signed_in_gets_nothing(db: None, method: str, path: str):
    assert getattr(APIClient(), method)(path).status_code == 401


# --- List -----------------------------------------------------------------------------------


def test_the_list_is_filtered_and_paged(create: Post, api: APIClient, alice: User):
    other = Note.objects.create(user=alice, title="Other")
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
def test_wrong_filters_are_400(api: APIClient, query: str):
    assert api.get(f"/reminders?{query}").status_code == 400


def test_a_list_of_many_takes_as_many_queries_as_one_of_few(
    create: Post, api: APIClient, mail, note: Note, django_assert_max_num_queries
):
    for _ in range(10):
        deliver(make_reminder(note))
    with django_assert_max_num_queries(4):
        listed = api.get("/reminders").json()["reminders"]
    assert [reminder["last_delivery"]["status"] for reminder in listed] == ["sent"] * 10


# --- Change ---------------------------------------------------------------------------------


def test_a_message_is_changed_and_nothing_else(create: Post, api: APIClient):
    made = create(rrule="FREQ=WEEKLY;COUNT=3")
    changed = api.patch(f"/reminders/{made['id']}", {"message": "New"}).json()
    assert changed["message"] == "New"
    untouched = made.keys() - {"message", "updated_at"}
    assert {key: changed[key] for key in untouched} == {key: made[key] for key in untouched}


def test_in_another_zone_the_clock_shows_the_same(create: Post, api: APIClient):
    made = create(
        scheduled_at="2027-06-01T19:00:00+02:00", rrule="FREQ=DAILY", time_zone="Europe/Berlin"
    )
    changed = api.patch(f"/reminders/{made['id']}", {"time_zone": "America/New_York"}).json()
    assert changed["next"][0] == "2027-06-01T19:00:00-04:00"


def test_a_rule_is_taken_away(create: Post, api: APIClient):
    made = create(rrule="FREQ=DAILY")
    changed = api.patch(f"/reminders/{made['id']}", {"rrule": ""}).json()
    assert (changed["rrule"], changed["next"]) == ("", made["next"][:1])
    assert changed["scheduled_at"] == made["scheduled_at"]


def test_a_new_time_makes_a_sent_reminder_pending(api: APIClient, mail, note: Note):
    reminder = make_reminder(note)
    deliver(reminder)
    assert reminder.status == "sent"
    changed = api.patch(f"/reminders/{reminder.pk}", {"scheduled_at": in_hours(1)}).json()
    assert changed["status"] == "pending"
    assert len(mail.messages) == 1


def test_what_only_the_server_may_say_is_not_taken(create: Post, api: APIClient):
    made = create()
    api.patch(f"/reminders/{made['id']}", {"status": "sent", "id": 1, "user": 1, "error": "x"})
    assert api.get(f"/reminders/{made['id']}").json() == made


def test_delete(create: Post, api: APIClient):
    made = create()
    assert api.delete(f"/reminders/{made['id']}").status_code == 204
    assert api.get(f"/reminders/{made['id']}").status_code == 404
    assert api.put(f"/reminders/{made['id']}", {}).status_code == 405


def test_reminders_go_with_their_note(create: Post, api: APIClient, note: Note):
    made = create()
    api.delete(f"/notes/{note.pk}")
    assert api.get(f"/reminders/{made['id']}").status_code == 404


# --- Cancel and snooze ----------------------------------------------------------------------


def test_cancelled_is_never_sent(create: Post, api: APIClient, mail, note: Note):
    reminder = make_reminder(note)
    answer = api.post(f"/reminders/{reminder.pk}/cancel")
    assert answer.status_code == 200, answer.content
    assert answer.json()["status"] == "cancelled"
    assert answer.json()["next"] == []
    assert api.post(f"/reminders/{reminder.pk}/cancel").status_code == 409
    assert api.post(f"/reminders/{reminder.pk}/snooze", {"minutes": 5}).status_code == 409


def test_snoozed_by_minutes_and_until(create: Post, api: APIClient):
    made = create()
    answer = api.post(f"/reminders/{made['id']}/snooze", {"minutes": 90}).json()
    distance = datetime.fromisoformat(answer["scheduled_at"]) - datetime.now(UTC)
    assert timedelta(minutes=89) < distance <= timedelta(minutes=90)
    until = in_hours(30)[:19] + "Z"
    answer = api.post(f"/reminders/{made['id']}/snooze", {"until": until}).json()
    assert answer["scheduled_at"] == until


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"minutes": 0}, {"minutes": 10**9}, {"minutes": "x"}),
        *({"until": "2020-01-01T00:00:00Z"}, {"until": in_hours(1)[:19]}),
        {"minutes": 5, "until": in_hours(1)},
    ],
)
def test_wrong_snoozes_are_400(create: Post, api: APIClient, body):
    made = create()
    assert api.post(f"/reminders/{made['id']}/snooze", body).status_code == 400


def test_a_snooze_leaves_the_rule_as_it_is(create: Post, api: APIClient):
    made = create(rrule="FREQ=DAILY")
    answer = api.post(f"/reminders/{made['id']}/snooze", {"minutes": 30}).json()
    assert answer["next"][1:] == made["next"][:4]
    assert local(answer["next"][0]) < local(made["next"][0])


# --- Preview --------------------------------------------------------------------------------


def test_a_preview_says_the_rule_in_words_and_the_next_times(api: APIClient):
    body = {
        "rrule": "FREQ=MONTHLY;BYDAY=-1SU",
        "time_zone": "Europe/London",
        "scheduled_at": "2027-02-01T19:00:00Z",
    }
    assert api.post("/reminders/preview", body).json() == {
        "rule_in_words": "every month on the last Sunday at 19:00",
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


def test_the_documentation_has_every_path(client, db: None):
    paths = set(client.get("/schema", headers={"Accept": "application/json"}).json()["paths"])
    assert {
        "/reminders",
        "/reminders/{id}",
        "/reminders/{id}/cancel",
        "/reminders/{id}/snooze",
        "/reminders/{id}/deliveries",
        "/reminders/preview",
        "/reminders/preferences",
        "/notifications",
        "/notifications/{id}/read",
        "/notifications/read-all",
    } <= paths


@pytest.mark.parametrize("until", ["00010101T000000Z", "99991231T235959Z"])
def test_an_end_at_the_edge_of_the_calendar_is_no_fault_of_ours(
    api: APIClient, note: Note, until: str
):
    body = {
        "rrule": f"FREQ=DAILY;UNTIL={until}",
        "time_zone": "America/New_York",
        "scheduled_at": in_a_day(),
    }
    assert api.post("/reminders/preview", body).status_code in (200, 400)


def test_a_rule_can_be_taken_away(api: APIClient, note: Note):
    body = {"note_id": note.pk, "scheduled_at": in_a_day(), "rrule": "FREQ=DAILY"}
    reminder = api.post("/reminders", body).json()
    Reminder.objects.update(start_date=date(2020, 1, 1))  # it has fired for years
    answer = api.patch(f"/reminders/{reminder['id']}", {"rrule": ""})
    assert answer.status_code == 200
    assert answer.json()["rrule"] == ""
    assert answer.json()["scheduled_at"] == reminder["scheduled_at"]


def test_a_new_time_withdraws_what_still_waits(create: Post, api: APIClient, note: Note):
    reminder = make_reminder(note)
    sweep()
    assert reminder.deliveries.get().status == "pending"
    answer = api.patch(f"/reminders/{reminder.pk}", {"scheduled_at": in_a_day()})
    assert answer.status_code == 200
    assert reminder.deliveries.get().status == "cancelled"


def test_another_zone_does_not_count_a_rule_anew(create: Post, api: APIClient):
    made = create(scheduled_at=in_a_day(), rrule="FREQ=DAILY;COUNT=3")
    two_days_ago = date.fromisoformat(made["scheduled_at"][:10]) - timedelta(days=2)
    Reminder.objects.update(start_date=two_days_ago)  # it has fired twice
    changed = api.patch(f"/reminders/{made['id']}", {"time_zone": "Europe/Berlin"}).json()
    assert len(changed["next"]) == 1


def test_the_hour_that_a_night_leaves_out_is_only_that_nights(create: Post, api: APIClient):
    """02:30 does not exist on the last Sunday of March; the rule starts there all the same."""
    made = create(
        scheduled_at="2035-01-10T02:30:00+01:00", rrule="FREQ=DAILY", time_zone="Europe/Berlin"
    )
    rule = {"rrule": "FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU"}
    changed = api.patch(f"/reminders/{made['id']}", rule).json()
    assert changed["next"][0][11:16] == "03:30"
    assert Reminder.objects.get().start_time.isoformat() == "02:30:00"


@pytest.mark.django_db(transaction=True)
def test_a_change_of_one_field_undoes_no_change_of_another(alice: User, note: Note):
    reminder = make_reminder(note, due_in=timedelta(hours=1))
    changes = [{"message": "New"}, {"channels": ["in_app"]}, {"rrule": "FREQ=DAILY"}]
    url = f"/reminders/{reminder.pk}"
    codes = at_once(3, lambda n: client_of(alice).patch(url, changes[n]).status_code)
    assert codes == [200] * 3
    reminder.refresh_from_db()
    assert (reminder.message, reminder.channels) == ("New", ["in_app"])
    assert reminder.rrule == "FREQ=DAILY"


@pytest.mark.django_db(transaction=True)
def test_a_change_waits_for_a_sweep_and_is_made_of_what_that_leaves(alice: User, note: Note):
    """Its zone moves with the reminder's next time, not with the one that was just swept."""
    reminder = make_reminder(note, rrule="FREQ=DAILY", start_time="19:00")
    following = timezone.now().replace(hour=19, minute=0, second=0, microsecond=0) + timedelta(2)
    held = Event()

    def sweep_or_change(number: int) -> int:
        if number:
            held.wait(10)
            url = f"/reminders/{reminder.pk}"
            return client_of(alice).patch(url, {"time_zone": "Asia/Tokyo"}).status_code
        with transaction.atomic():
            assert sweep_at(following - timedelta(days=1)) == 1
            held.set()
            eventually(somebody_waits_for_a_lock, timeout=20)
        return 0

    assert at_once(2, sweep_or_change) == [0, 200]
    reminder.refresh_from_db()
    assert reminder.time_zone == "Asia/Tokyo"
    assert reminder.scheduled_at.astimezone(reminder.zone).hour == 19


def in_a_day() -> str:
    return (timezone.now() + timedelta(days=1)).isoformat()
