"""GET /semantic/similar/{note_id}."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from notes.models import Note
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.notes import embed_note
from tests.helpers.samples import psalm

NUMBERS = (14, 53, 40, 70, 117, 150)


@pytest.fixture
def psalms(alice: User) -> dict[int, Note]:
    """Psalms 14 and 53 are almost the same, and 70 is the end of 40."""
    notes = {n: make_note(alice, **psalm(n)) for n in NUMBERS}
    for note in notes.values():
        embed_note(note.pk)
    return notes


def similar(api: APIClient, note: Note, **query) -> list[str]:
    response = api.get(f"/semantic/similar/{note.pk}", query)
    assert response.status_code == 200
    return [result["note"]["title"] for result in response.json()["results"]]


def test_similar_returns_closest_notes_without_the_note(api: APIClient, psalms: dict[int, Note]):
    assert similar(api, psalms[14])[0] == "Psalm 53"
    assert similar(api, psalms[70])[0] == "Psalm 40"
    assert "Psalm 14" not in similar(api, psalms[14], min_similarity=-1, limit=100)


def test_similar_finds_a_copy_of_a_long_note(api: APIClient, alice: User):
    """The vectors of a long note point in many directions."""
    for title in ("One", "Copy"):
        embed_note(make_note(alice, **psalm(119) | {"title": title}).pk)
    one = Note.objects.get(title="One")
    (copy,) = api.get(f"/semantic/similar/{one.pk}").json()["results"]
    assert copy["note"]["title"] == "Copy"
    assert 0.7 < copy["similarity_score"] <= 1


def test_similar_pages_are_consistent(api: APIClient, psalms: dict[int, Note]):
    everything = similar(api, psalms[117], min_similarity=-1)
    assert len(everything) == len(NUMBERS) - 1
    pages = [similar(api, psalms[117], min_similarity=-1, limit=2, offset=n) for n in (0, 2, 4)]
    assert [title for page in pages for title in page] == everything
    assert similar(api, psalms[117], min_similarity=0.99) == []


def test_similar_is_degraded_for_a_note_without_vectors(
    api: APIClient, alice: User, psalms: dict[int, Note]
):
    new = make_note(alice)
    answer = api.get(f"/semantic/similar/{new.pk}").json()
    assert answer == {"results": [], "degraded": ["semantic"]}


def test_similar_never_returns_notes_of_other_users(
    bobs_api: APIClient, bob: User, psalms: dict[int, Note]
):
    own = make_note(bob, **psalm(53))
    embed_note(own.pk)
    assert similar(bobs_api, own, min_similarity=-1) == []
    assert bobs_api.get(f"/semantic/similar/{psalms[14].pk}").status_code == 404


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 101}, {"offset": -1}, {"min_similarity": "much"}]
)
def test_invalid_numbers_are_400(api: APIClient, psalms: dict[int, Note], query):
    response = api.get(f"/semantic/similar/{psalms[14].pk}", query)
    assert response.status_code == 400
    assert response.json()["errors"][0]["param"] in query


def test_missing_note_is_404_and_no_user_is_401(api: APIClient):
    assert api.get("/semantic/similar/0").status_code == 404
    assert APIClient().get("/semantic/similar/1").status_code == 401
