"""POST, GET, PATCH and DELETE /notes[/{id}]."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.test import APIClient

from notes.models import CONTENT_MAX_CHARACTERS, Note
from scribes.models import User

SERMON = {
    "title": "Born again",
    "content": "# Nicodemus\n\nHe came **by night**.\n",
    "preacher": "C. H. Spurgeon",
    "tags": ["john", "new birth"],
    "scripture_refs": "Jn 3:14-21",
}


@pytest.fixture
def note(alice: User) -> Note:
    return Note.objects.create(user=alice, **SERMON)


def test_create_keeps_every_field_as_typed(api: APIClient, alice: User):
    response = api.post("/notes", SERMON)
    assert response.status_code == 201
    body = response.json()
    assert {key: body[key] for key in SERMON} == SERMON
    assert Note.objects.get(pk=body["id"]).user == alice
    assert api.get(f"/notes/{body['id']}").json() == body


def test_a_title_is_all_that_is_needed(api: APIClient):
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
def test_create_refuses_what_does_not_fit(api: APIClient, change: dict[str, Any], param: str):
    response = api.post("/notes", SERMON | change)
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"] == param
    assert not Note.objects.exists()


def test_the_owner_is_not_for_the_client_to_say(api: APIClient, alice: User, bob: User):
    body = api.post("/notes", SERMON | {"user": bob.pk, "text_hash": "0"}).json()
    assert Note.objects.get(pk=body["id"]).user == alice


def test_patch_changes_only_what_it_names(api: APIClient, note: Note):
    body = api.patch(f"/notes/{note.pk}", {"tags": ["night"]}).json()
    assert (body["tags"], body["title"]) == (["night"], "Born again")
    assert body["updated_at"] > body["created_at"]


def test_delete_is_final(api: APIClient, note: Note):
    assert api.delete(f"/notes/{note.pk}").status_code == 204
    assert api.get(f"/notes/{note.pk}").status_code == 404
    assert api.delete(f"/notes/{note.pk}").status_code == 404


def test_list_has_the_one_edited_last_first(api: APIClient, alice: User):
    notes = [Note.objects.create(user=alice, title=f"Note {n}") for n in range(3)]
    notes[0].save()
    body = api.get("/notes?limit=2").json()
    assert body["total"] == 3
    assert [note["title"] for note in body["notes"]] == ["Note 0", "Note 2"]


def test_list_has_the_beginning_of_each_content(api: APIClient, alice: User, note: Note):
    Note.objects.create(user=alice, title="Long", content="🙏" * CONTENT_MAX_CHARACTERS)
    answer = api.get("/notes?ordering=title")
    short, long = answer.json()["notes"]
    whole = api.get(f"/notes/{note.pk}").json()
    assert whole.pop("content") == SERMON["content"]
    assert short == whole | {"beginning": SERMON["content"]}
    assert long["beginning"] == "🙏" * 300
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "offset=-1"])
def test_list_refuses_wrong_pages(api: APIClient, query: str):
    assert api.get(f"/notes?{query}").status_code == 400


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
def test_foreign_and_missing_notes_are_the_same_404(bobs_api: APIClient, note: Note, method: str):
    foreign = getattr(bobs_api, method)(f"/notes/{note.pk}")
    missing = getattr(bobs_api, method)("/notes/999999999999999999999")
    assert foreign.status_code == missing.status_code == 404
    assert foreign.json()["errors"] == missing.json()["errors"]
    note.refresh_from_db()
    assert note.title == "Born again"


def test_list_shows_only_ones_own(bobs_api: APIClient, note: Note):
    assert bobs_api.get("/notes").json() == {"notes": [], "total": 0}


def test_nobody_is_401(note: Note):
    assert APIClient().get("/notes").status_code == 401
    assert APIClient().post("/notes", SERMON).status_code == 401
    assert APIClient().get(f"/notes/{note.pk}").status_code == 401


def test_wrong_methods_are_405(api: APIClient, note: Note):
    assert api.delete("/notes").status_code == 405
    assert api.put(f"/notes/{note.pk}", SERMON).status_code == 405
