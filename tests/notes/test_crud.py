"""POST, GET, PATCH and DELETE /notes[/{id}]."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from notes.models import CONTENT_MAX_CHARACTERS, Note
from scribes.models import User
from tests.helpers.factories import make_note

SERMON: dict[str, Any] = {
    "title": "Born again",
    "content": "# Nicodemus\n\nHe came **by night**.\n",
    "preacher": "C. H. Spurgeon",
    "tags": ["john", "new birth"],
    "scripture_refs": "Jn 3:14-21",
}


@pytest.fixture
def note(alice: User) -> Note:
    return make_note(alice, **SERMON)


def test_create_stores_every_field_as_typed(api: APIClient, alice: User):
    response = api.post("/notes", SERMON)
    assert response.status_code == 201
    body = response.json()
    assert {key: body[key] for key in SERMON} == SERMON
    assert Note.objects.get(pk=body["id"]).user == alice
    assert api.get(f"/notes/{body['id']}").json() == body


def test_create_needs_only_a_title(api: APIClient):
    body = api.post("/notes", {"title": "Later"}).json()
    assert (body["content"], body["tags"], body["preacher"]) == ("", [], "")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"title": ""}, "title"),
        ({"title": None}, "title"),
        ({"title": "x" * 301}, "title"),
        ({"title": ["a"]}, "title"),
        ({"content": "x" * (CONTENT_MAX_CHARACTERS + 1)}, "content"),
        ({"tags": "john"}, "tags"),
        ({"tags": ["ok", "x" * 101]}, "tags.1"),
        ({"tags": ["x"] * 51}, "tags"),
        ({"scripture_refs": "x" * 2001}, "scripture_refs"),
    ],
)
def test_create_refuses_invalid_fields(api: APIClient, change: dict[str, Any], param: str):
    response = api.post("/notes", SERMON | change)
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"] == param
    assert not Note.objects.exists()


def test_create_ignores_fields_the_client_must_not_set(api: APIClient, alice: User, bob: User):
    body = api.post("/notes", SERMON | {"user": bob.pk, "text_hash": "0"}).json()
    assert Note.objects.get(pk=body["id"]).user == alice


def test_patch_changes_only_the_given_fields(api: APIClient, note: Note):
    body = api.patch(f"/notes/{note.pk}", {"tags": ["night"]}).json()
    assert (body["tags"], body["title"]) == (["night"], "Born again")
    assert body["updated_at"] > body["created_at"]


def test_deleted_note_is_gone(api: APIClient, note: Note):
    assert api.delete(f"/notes/{note.pk}").status_code == 204
    assert api.get(f"/notes/{note.pk}").status_code == 404
    assert api.delete(f"/notes/{note.pk}").status_code == 404


def test_list_starts_with_the_most_recently_edited_note(api: APIClient, alice: User):
    notes = [make_note(alice, f"Note {n}") for n in range(3)]
    notes[0].save()
    body = api.get("/notes?limit=2").json()
    assert body["total"] == 3
    assert [note["title"] for note in body["notes"]] == ["Note 0", "Note 2"]


def test_list_has_previews_instead_of_contents(api: APIClient, alice: User, note: Note):
    make_note(alice, "Long", content="🙏" * CONTENT_MAX_CHARACTERS)
    answer = api.get("/notes?ordering=title")
    short, long = answer.json()["notes"]
    whole = api.get(f"/notes/{note.pk}").json()
    assert whole.pop("content") == SERMON["content"]
    assert whole.pop("references")
    assert short == whole | {"preview": SERMON["content"]}
    assert long["preview"] == "🙏" * 300
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "offset=-1"])
def test_list_refuses_invalid_pages(api: APIClient, query: str):
    assert api.get(f"/notes?{query}").status_code == 400


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
def test_notes_of_others_and_missing_notes_are_equal_404s(
    bobs_api: APIClient, note: Note, method: str
):
    foreign = getattr(bobs_api, method)(f"/notes/{note.pk}")
    missing = getattr(bobs_api, method)("/notes/999999999999999999999")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json()["errors"] == missing.json()["errors"]
    note.refresh_from_db()
    assert note.title == "Born again"


def test_list_contains_own_notes_only(bobs_api: APIClient, note: Note):
    assert bobs_api.get("/notes").json() == {"notes": [], "total": 0}


def test_request_without_user_is_401(note: Note):
    assert APIClient().get("/notes").status_code == 401
    assert APIClient().post("/notes", SERMON).status_code == 401
    assert APIClient().get(f"/notes/{note.pk}").status_code == 401


def test_unsupported_methods_are_405(api: APIClient, note: Note):
    assert api.delete("/notes").status_code == 405
    assert api.put(f"/notes/{note.pk}", SERMON).status_code == 405
