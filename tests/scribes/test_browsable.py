"""The browsable API without a browser: the content of its pages, and requests as its forms send them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from rest_framework.test import APIClient

from notes.models import Note
from reminders.models import Reminder, ReminderPreferences
from scribes.models import User
from tests.helpers.factories import make_job

HTML = {"Accept": "text/html"}
PASSWORD = "correct horse battery"


class Person:
    """alice with a browser: she has a session, and CSRF tokens are checked."""

    def __init__(self) -> None:
        self.client = APIClient(enforce_csrf_checks=True, headers=HTML)

    def open(self, path: str) -> str:
        return unescape(str(self.client.get(path).content, "utf-8"))

    def submit(self, path: str, method: str = "post", **fields: Any) -> tuple[int, str]:
        """Submit a form as a browser does: multipart, with the page's CSRF token."""
        found = re.search(r'csrf\w*"(?:: | value=)"(\w+)"', self.open(path), re.IGNORECASE)
        assert found
        token = found[1]
        # A POST has it in an input. The page's script sends a PATCH and has it in a header.
        if method == "post":
            fields["csrfmiddlewaretoken"] = token
        headers = {} if method == "post" else {"X-CSRFToken": token}
        send = getattr(self.client, method)
        response = send(path, fields, format="multipart", headers=headers)
        return response.status_code, unescape(response.content.decode())


@pytest.fixture
def person(db: None) -> Person:
    person = Person()
    person.client.force_login(User.objects.create_user("alice@example.com"))
    return person


@pytest.fixture
def note(person: Person) -> Note:
    return Note.objects.create(user=User.objects.get(), title="Grace", content="one\ntwo", tags=[])


def inputs(page: str) -> set[str]:
    """The names of the form's inputs, without those for raw data and for filters."""
    (form,) = re.findall(
        r'<form [^>]*enctype="multipart/form-data" class="form.*?</form>', page, re.S
    )
    return set(re.findall(r'name="(\w+)"', form)) - {"csrfmiddlewaretoken"}


def error_beside(page: str, field: str) -> str:
    """The first message below a field that has errors."""
    groups = re.findall(r'<div class="form-group .*?(?=<div class="form-group|</form>)', page, re.S)
    (group,) = [g for g in groups if f'name="{field}"' in g and "has-error" in g]
    return str(re.findall(r'"help-block">(.*?)<', group)[0])


def tomorrow() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")


# --- Signing in -----------------------------------------------------------------------------


def test_sign_in_link_leads_back_to_the_page(db: None):
    stranger = Person()
    page = stranger.open("/notes?tags=a")
    assert "HTTP 401" in page
    assert 'href="/login/?next=/notes%3Ftags%3Da"' in page
    assert "href='/login/?next=/'" in stranger.open("/")
    User.objects.create_user("alice@example.com", PASSWORD)
    fields: dict[str, Any] = {
        "username": "alice@example.com",
        "password": PASSWORD,
        "next": "/notes?tags=a",
    }
    assert stranger.submit("/login/", **fields)[0] == 302
    assert "HTTP 200" in stranger.open("/notes?tags=a")


def test_root_page_links_to_all_resources(person: Person):
    page = person.open("/")
    for path in ("/notes", "/jobs", "/semantic/search", "/reminders", "/notifications", "/me"):
        assert f'<a href="http://testserver{path}"' in page


# --- Forms ----------------------------------------------------------------------------------

FORMS = {
    "/notes": {"title", "content", "preacher", "tags", "scripture_refs"},
    "/semantic/search": {
        *("query", "mode", "tags", "preacher", "scripture", "date_from", "date_to"),
        *("limit", "offset", "min_similarity"),
    },
    "/semantic/regenerate-embeddings": {"only_stale", "dry_run"},
    "/reminders": {"note_id", "scheduled_at", "channels", "rrule", "time_zone", "message"},
    "/reminders/preview": {"rrule", "time_zone", "scheduled_at"},
    "/reminders/preferences": {"quiet_from", "quiet_until", "digest_at", "webhook_url"},
    "/reminders/preferences/rotate-secret": {"secret"},
    "/notifications/read-all": set(),
    "/me": {"time_zone"},
}


@pytest.mark.parametrize("path", FORMS)
def test_form_has_an_explanation_for_each_input(person: Person, path: str):
    page = person.open(path)
    assert inputs(page) == FORMS[path]
    # This includes the inputs of the filters.
    _, *fields = page.partition("multipart/form-data")[2].split('<div class="form-group')
    assert all("help-block" in field for field in fields if "_content" not in field)


def test_page_of_a_post_endpoint_shows_its_form_and_no_error(person: Person):
    assert '<body class="only-a-form">' in person.open("/semantic/search")
    assert '<body class="">' in person.open("/notes")


def test_note_form_stores_the_text_as_typed(person: Person):
    status, page = person.submit("/notes", title="A", content="one\r\ntwo", tags="x\r\ny, z\r\n")
    assert status == 201
    created = Note.objects.get()
    assert (created.content, created.tags) == ("one\ntwo", ["x", "y, z"])
    for path in (
        f"/notes/{created.pk}",
        f"/semantic/similar/{created.pk}",
        f"/reminders?note_id={created.pk}",
    ):
        assert f'href="{path}"' in page


def test_invalid_form_keeps_its_values_and_shows_errors(person: Person):
    status, page = person.submit("/notes", title="", content="kept", tags="ok\n" + "x" * 101)
    assert status == 400
    assert error_beside(page, "title") == "This field may not be blank."
    assert "no more than 100" in error_beside(page, "tags")
    assert ">kept</textarea>" in page
    assert not Note.objects.exists()


def test_note_form_changes_only_the_submitted_fields(person: Person, note: Note):
    path = f"/notes/{note.pk}"
    assert ">one\ntwo</textarea>" in person.open(path)
    status, page = person.submit(path, "patch", title="New", content="one\r\ntwo", tags="")
    assert status == 200
    note.refresh_from_db()
    assert (note.title, note.content, note.tags) == ("New", "one\ntwo", [])
    status, page = person.submit(path, "patch", title="")
    assert (status, error_beside(page, "title")) == (400, "This field may not be blank.")


def test_reminder_forms_create_change_and_snooze(person: Person, note: Note):
    page = person.open("/reminders")
    assert re.search(r'name="note_id"[^>]+type="number"', page)
    when = tomorrow()
    fields: dict[str, Any] = {
        "note_id": note.pk,
        "scheduled_at": when,
        "rrule": "",
        "time_zone": "",
        "message": "Hm",
    }
    status, page = person.submit("/reminders", **fields, channels=["in_app", "email"])
    assert status == 201
    created = Reminder.objects.get()
    assert created.channels == ["in_app", "email"]
    for path in (f"/notes/{note.pk}", f"/reminders/{created.pk}/deliveries"):
        assert f'href="{path}"' in page
    status, _ = person.submit(f"/reminders/{created.pk}", "patch", scheduled_at="", message="Oh")
    created.refresh_from_db()
    assert (status, created.message, created.scheduled_at) == (
        200,
        "Oh",
        datetime.fromisoformat(when),
    )
    status, page = person.submit("/reminders", **fields | {"scheduled_at": "2027-01-31T19:00"})
    assert (status, error_beside(page, "scheduled_at")[:20]) == (400, "Give the offset from")
    status, page = person.submit(f"/reminders/{created.pk}/snooze", until="", minutes="30")
    assert status == 200


def test_preview_form_shows_a_bad_rule_beside_the_field(person: Person):
    fields: dict[str, Any] = {"scheduled_at": tomorrow(), "time_zone": ""}
    status, page = person.submit("/reminders/preview", **fields, rrule="FREQ=HOURLY")
    assert (status, bool(error_beside(page, "rrule"))) == (400, True)
    status, page = person.submit("/reminders/preview", **fields, rrule="FREQ=DAILY")
    assert status == 200
    assert "every day" in page
    assert 'value="FREQ=DAILY"' in page


def test_preferences_form_sets_and_clears_times(person: Person):
    path = "/reminders/preferences"
    times: dict[str, Any] = {
        "quiet_from": "22:00",
        "quiet_until": "07:00",
        "digest_at": "",
        "webhook_url": "",
    }
    assert person.submit(path, "patch", **times)[0] == 200
    assert person.submit(path, "patch", **dict.fromkeys(times, ""))[0] == 200
    assert ReminderPreferences.objects.get().quiet_from is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"dry_run": "true"}, '"seconds": null'), ({}, "has been queued")],
    ids=["dry run", "for real"],
)
def test_regeneration_form_estimates_or_starts_a_job(
    person: Person, note: Note, fields: dict[str, str], text: str
):
    status, page = person.submit("/semantic/regenerate-embeddings", **fields)
    assert text in page
    assert (status, bool(re.search(r'href="/jobs/[\w-]{36}"', page))) == (
        (200, False) if fields else (202, True)
    )


@pytest.mark.parametrize("method", ["options", "delete"])
def test_other_methods_render_as_html(person: Person, note: Note, method: str):
    api = APIClient(headers=HTML)
    api.force_authenticate(note.user)
    for path in ("/notes", f"/notes/{note.pk}", "/semantic/search", "/reminders", "/jobs", "/me"):
        assert getattr(api, method)(path).status_code in (200, 204, 405)


# --- Lists ----------------------------------------------------------------------------------


def test_list_page_links_to_other_pages_and_escapes_titles(person: Person, note: Note):
    for number in range(3):
        Note.objects.create(user=note.user, title=f"<b>{number}</b>")
    page = person.client.get("/notes?limit=2").content.decode()
    assert "&lt;b&gt;2&lt;/b&gt;" in page
    assert "<b>2</b>" not in page
    assert "/notes?limit=2&amp;offset=2" in page
    assert 'class="pagination"' not in person.open("/notes")


def test_filter_form_ignores_empty_inputs(person: Person, note: Note):
    page = person.open("/notes")
    assert "The note has all of these tags." in page
    assert 'name="scripture"' in page
    everything = "tags=&preacher=&scripture=&date_from=&date_to=&ordering="
    assert person.client.get(f"/notes?{everything}", headers={"Accept": "*/*"}).json()["total"] == 1
    page = person.open("/reminders?status=sent&note_id=&due_before=")
    assert re.search(r'<option value="sent" selected>', page)


def test_job_has_buttons_for_its_available_operations(person: Person):
    alice = User.objects.get()
    ended = make_job(alice, status="completed", total_items=1, failed_items=1)
    job = make_job(alice)
    page = person.open("/jobs")
    button = '<form method="post" action="/jobs/{}/{}"'
    assert button.format(job.pk, "cancel") in page
    assert button.format(ended.pk, "retry") in page
    status, page = person.submit(f"/jobs/{job.pk}/cancel")
    assert status == 202
    assert button.format(job.pk, "cancel") not in page
    assert person.submit(f"/jobs/{job.pk}/cancel")[0] == 409
    assert f'href="/jobs/{job.pk}/failures"' in person.open(f"/jobs/{job.pk}/status")
    assert person.client.get(f"/jobs/{job.pk}/failures?group_by=cause").status_code == 200


# --- Safety ---------------------------------------------------------------------------------


def test_form_without_a_csrf_token_changes_nothing(person: Person):
    assert person.client.post("/notes", {"title": "Forged"}, format="multipart").status_code == 403
    assert not Note.objects.exists()


def malformed_forms() -> dict[str, tuple[bytes, str]]:
    def part(name: str, value: bytes, more: str = "") -> bytes:
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
        return head.encode() + value + b"\r\n--b--\r\n"

    form = "multipart/form-data; boundary=b"
    return {
        "no boundary": (b"title=a", "multipart/form-data"),
        "not multipart": (b"title=a", form),
        "a file": (part("title", b"a", '; filename="a"'), form),
        "a file for a list": (part("tags", b"a", '; filename="a"'), form),
        "NUL": (part("title", b"a\0b"), form),
        "too many parts": (part("title", b"a") * 2000, form),
        "6 MB": (part("title", b"a" * 6_000_000), form),
        "rot13": (part("content", b"a"), f"{form}; charset=rot13"),
    }


@pytest.mark.parametrize("name", malformed_forms())
@pytest.mark.parametrize("client", [APIClient, lambda **o: APIClient(headers=HTML, **o)])
def test_malformed_form_is_4xx(alice: User, name: str, client: Callable[..., APIClient]):
    body, content_type = malformed_forms()[name]
    api = client(raise_request_exception=False)
    api.force_authenticate(alice)
    response = api.post("/notes", body, content_type=content_type)
    assert 400 <= response.status_code < 500, response.content
    assert not Note.objects.exists()


def test_media_type_matters_only_where_a_body_is_read(alice: User):
    job = make_job(alice)
    api = APIClient(raise_request_exception=False, headers=HTML)
    api.force_authenticate(alice)
    form = "application/x-www-form-urlencoded"
    assert api.post(f"/jobs/{job.pk}/cancel", "a=b", content_type=form).status_code == 202
    assert api.post("/notes", "title=a", content_type=form).status_code == 415
