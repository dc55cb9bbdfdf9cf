"""Nothing loads the content of a note that it does not show: a note may have a megabyte."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from rest_framework.test import APIClient

from notes.embeddings.saved_notes import embed_and_save
from notes.models import Note
from notes.search.highlighting import REGION_CHARACTERS
from reminders.links import action_url
from reminders.models import Delivery, Reminder
from scribes.models import User
from tests.helpers.factories import make_note, make_reminders
from tests.helpers.plans import bytes_read
from tests.helpers.reminders import send, sweep

NOTES = 5
LONG = "The Lord is my shepherd; I shall not want.\n" * 23_000


@pytest.fixture
def long_notes(alice: User) -> list[Note]:
    return [make_note(alice, f"Note {n}", content=f"{n} {LONG}") for n in range(NOTES)]


@pytest.mark.usefixtures("long_notes")
def test_search_reads_only_the_regions_that_it_shows(api: APIClient):
    body = {"query": "shepherd", "mode": "keyword"}
    assert len(api.post("/semantic/search", body).json()["results"]) == NOTES
    read = bytes_read(lambda: api.post("/semantic/search", body))
    assert read < NOTES * 2 * REGION_CHARACTERS


def test_semantic_search_reads_only_passages(api: APIClient, alice: User):
    notes = [make_note(alice, f"Note {n}", content=f"{n} {LONG[:30_000]}") for n in range(2)]
    embed_and_save([note.pk for note in notes])
    body = {"query": "Who looks after me?", "mode": "semantic"}
    assert len(api.post("/semantic/search", body).json()["results"]) == 2
    read = bytes_read(lambda: api.post("/semantic/search", body))
    assert read < 10_000
    assert bytes_read(lambda: api.get(f"/semantic/similar/{notes[0].pk}")) < 10_000


def test_semantic_search_cuts_a_passage_of_white_space(api: APIClient, alice: User):
    """White space has no tokens, so any amount of it fits into one passage."""
    note = make_note(alice, content=f"The Lord is{' ' * 900_000}my shepherd.")
    embed_and_save([note.pk])
    body = {"query": "Who looks after me?", "mode": "semantic", "min_similarity": -1}
    (result,) = api.post("/semantic/search", body).json()["results"]
    passage = result["passage"]
    assert passage["text"] == note.content[passage["char_start"] : passage["char_end"]]
    assert len(passage["text"]) <= REGION_CHARACTERS


@pytest.mark.usefixtures("long_notes")
def test_list_of_notes_reads_their_beginnings(api: APIClient):
    assert len(api.get("/notes").json()["notes"]) == NOTES
    assert bytes_read(lambda: api.get("/notes")) < 10_000


def test_reminders_read_the_titles_of_notes(
    api: APIClient, client: Client, alice: User, long_notes: list[Note]
):
    make_reminders(long_notes[0], 20)
    url = api.get("/reminders/preferences").json()["feed_url"]
    feed = url[url.index("/reminders") :]
    assert client.get(feed).content.count(b"BEGIN:VEVENT") == 20
    for call in (
        lambda: client.get(feed),
        lambda: api.get("/reminders"),
        sweep,
        send,
        lambda: api.get("/notifications"),
        lambda: client.get(link_of(long_notes[0])),
    ):
        assert bytes_read(call) < 50_000
    assert Delivery.objects.filter(status="sent").exists()


def link_of(note: Note) -> str:
    url = action_url(Delivery.objects.filter(reminder__note=note).first(), "cancel")  # type: ignore[arg-type]
    return url[url.index("/reminders") :]


def test_deleting_a_note_reads_no_content(api: APIClient, long_notes: list[Note]):
    make_reminders(long_notes[0], 3)
    assert not reads_content(lambda: api.delete(f"/notes/{long_notes[0].pk}"))
    assert not Note.objects.filter(pk=long_notes[0].pk).exists()


def test_admin_pages_read_no_content(client: Client, long_notes: list[Note]):
    make_reminders(long_notes[0], 3)
    sweep()
    client.force_login(User.objects.create_superuser("admin@example.com", "a password"))
    for row in (long_notes[0], Reminder.objects.first(), Delivery.objects.first()):
        name = f"admin:{row._meta.app_label}_{row._meta.model_name}"  # type: ignore[union-attr]
        pages = reverse(f"{name}_changelist"), reverse(f"{name}_change", args=[row.pk])  # type: ignore[union-attr]
        for page in pages:
            assert client.get(page).status_code == 200
            assert not reads_content(lambda p=page: client.get(p)), page  # type: ignore[misc]


def reads_content(call: Callable[[], object]) -> bool:
    with CaptureQueriesContext(connection) as queries:
        call()
    assert queries.captured_queries
    return any('"notes"."content"' in query["sql"] for query in queries.captured_queries)
