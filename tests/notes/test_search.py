"""POST /semantic/search and GET /semantic/status."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction
from rest_framework.test import APIClient

from notes import serving
from notes.embedding import encoder
from notes.indexing import EmbeddedNote, embed_notes, save_embedded
from notes.models import Note, Passage
from notes.passages import Span
from scribes.management.commands.demo import psalm
from scribes.models import User
from tests.conftest import client_of
from tests.plans import plans_of

PSALMS = (1, 8, 19, 22, 23, 51, 117, 121, 127, 133)


def index(*notes: Note) -> None:
    model = serving.default()
    save_embedded(embed_notes(list(notes), model), model)


@pytest.fixture
def psalms(alice: User) -> dict[int, Note]:
    notes = {n: Note.objects.create(user=alice, **psalm(n)) for n in PSALMS}
    index(*notes.values())
    return notes


def search(api: APIClient, query: str, **options) -> list[dict[str, Any]]:
    response = api.post("/semantic/search", {"query": query} | options)
    assert response.status_code == 200
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def titles(results: list[dict[str, Any]]) -> list[str]:
    return [result["note"]["title"] for result in results]


def test_finds_what_is_meant_and_shows_where_it_stands(api: APIClient, psalms: dict[int, Note]):
    best = search(api, "Good it is when brothers live in peace with each other")[0]
    assert best["note"]["id"] == psalms[133].pk
    assert "content" not in best["note"]
    passage, content = best["passage"], psalms[133].content
    assert passage["text"] == content[passage["char_start"] : passage["char_end"]]
    assert "dwell together in unity" in passage["text"]
    assert 0.3 < best["similarity_score"] <= 1


def test_equals_brute_force_over_all_passages(api: APIClient, psalms: dict[int, Note]):
    query = "The heavens tell of God's glory"
    vector = encoder().embed([query])[0]
    best: dict[int, float] = {}
    for passage in Passage.objects.all():
        score = float(np.dot(vector, passage.vector))
        best[passage.note_id] = max(score, best.get(passage.note_id, -1))
    expected = sorted(best.items(), key=lambda item: -item[1])
    found = search(api, query, mode="meaning", min_similarity=-1, limit=100)
    assert [result["note"]["id"] for result in found] == [note for note, _ in expected]
    scores = [result["similarity_score"] for result in found]
    assert scores == pytest.approx([score for _, score in expected], abs=1e-3)


@pytest.mark.parametrize("mode", ["hybrid", "meaning", "words"])
def test_pages_fit_together(api: APIClient, psalms: dict[int, Note], mode: str):
    def page(limit: int, offset: int = 0) -> list[tuple[str, float]]:
        query = {"mode": mode, "min_similarity": -1, "limit": limit, "offset": offset}
        return [(r["note"]["title"], r["score"]) for r in search(api, "lord praise", **query)]

    whole = page(len(PSALMS))
    assert [found for offset in (0, 3, 6, 9) for found in page(3, offset)] == whole[:12]
    assert len(dict(whole)) == len(whole) > 3
    assert mode == "words" or len(whole) == len(PSALMS)


def test_min_similarity_leaves_out_the_rest(api: APIClient, psalms: dict[int, Note]):
    query = "The Lord is my shepherd"
    scores = [r["similarity_score"] for r in search(api, query, mode="meaning")]
    found = search(api, query, mode="meaning", min_similarity=scores[1] - 1e-6)
    assert [result["similarity_score"] for result in found] == scores[:2]


def test_says_why_it_found_a_note(api: APIClient, psalms: dict[int, Note]):
    new = Note.objects.create(
        user=psalms[1].user, title="Not embedded yet", content="The shepherd's crook."
    )
    found = {r["note"]["id"]: r for r in search(api, "the shepherd", limit=100)}
    assert found[psalms[23].pk]["why"] == "both"
    assert found[psalms[117].pk]["why"] == "meaning"
    assert (found[new.pk]["why"], found[new.pk]["similarity_score"]) == ("words", None)
    assert found[new.pk]["passage"]["text"] == "The shepherd's crook."
    assert "<mark>shepherd</mark>" in found[psalms[23].pk]["passage"]["excerpt"]


def test_score_is_the_sum_of_reciprocal_ranks(api: APIClient, psalms: dict[int, Note]):
    places: dict[int, float] = {}
    for mode in ("meaning", "words"):
        for place, result in enumerate(search(api, "shepherd", mode=mode, limit=100), 1):
            note = result["note"]["id"]
            places[note] = places.get(note, 0) + 1 / (60 + place)
    hybrid = search(api, "shepherd", limit=100)
    assert {r["note"]["id"]: r["score"] for r in hybrid} == pytest.approx(places)
    assert [r["score"] for r in hybrid] == sorted(places.values(), reverse=True)


def test_never_finds_somebody_elses_notes(bobs_api: APIClient, psalms: dict[int, Note]):
    assert search(bobs_api, "The Lord is my shepherd", min_similarity=-1) == []


@pytest.mark.parametrize("mode", ["hybrid", "meaning"])
@pytest.mark.parametrize(
    ("excluded", "gone"),
    [
        ("-waters", {1, 22, 23}),
        ('-"still waters"', {23}),
        ("-“still waters” -brethren", {22, 23, 133}),
        ("-shepherd -the", {23}),
        ('"not -shepherd"', set()),
        ("still-waters - shepherd", set()),
    ],
)
def test_a_minus_excludes_from_both_ways(
    api: APIClient, psalms: dict[int, Note], mode: str, excluded: str, gone: set[int]
):
    found = search(
        api, f"a quiet place to rest {excluded}", mode=mode, min_similarity=-1, limit=100
    )
    assert set(titles(found)) <= {f"Psalm {n}" for n in PSALMS if n not in gone}
    if mode == "meaning":
        assert len(found) == len(PSALMS) - len(gone)


def test_what_is_excluded_is_not_what_is_meant(api: APIClient, psalms: dict[int, Note]):
    plain = search(api, "rest", mode="meaning", min_similarity=-1, limit=100)
    without = search(api, "rest -nicodemus", mode="meaning", min_similarity=-1, limit=100)
    assert [r["similarity_score"] for r in without] == [r["similarity_score"] for r in plain]


@pytest.mark.parametrize("mode", ["hybrid", "meaning"])
def test_an_exclusion_alone_finds_the_other_notes(
    api: APIClient, psalms: dict[int, Note], mode: str
):
    found = search(api, "-waters", mode=mode, limit=100)
    assert set(titles(found)) == {f"Psalm {n}" for n in PSALMS if n not in (1, 22, 23)}


def test_never_finds_deleted_notes_nor_old_texts(api: APIClient, psalms: dict[int, Note]):
    psalms[23].delete()
    psalms[22].content = "Nothing of what it said."
    psalms[22].save()
    found = titles(search(api, "The Lord is my shepherd", min_similarity=-1, limit=100))
    assert len(found) == len(PSALMS) - 2
    assert not {"Psalm 22", "Psalm 23"} & set(found)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "  "}, "query"),
        ({"query": "x" * 2001}, "query"),
        ({"query": "\u0000"}, None),
        ({"query": {"$ne": 1}}, "query"),
        ({"query": "a", "limit": 0}, "limit"),
        ({"query": "a", "limit": 101}, "limit"),
        ({"query": "a", "offset": -1}, "offset"),
        ({"query": "a", "min_similarity": 1.1}, "min_similarity"),
        ({"query": "a", "min_similarity": "high"}, "min_similarity"),
        ([], None),
    ],
)
def test_refuses_wrong_queries(api: APIClient, body: Any, param: str | None):
    response = api.post("/semantic/search", body)
    assert response.status_code == 400
    assert response.json()["errors"][0].get("param") == param


def test_nobody_is_401(db: None):
    assert APIClient().post("/semantic/search", {"query": "a"}).status_code == 401
    assert APIClient().get("/semantic/status").status_code == 401


def test_status_counts_what_can_be_found(api: APIClient, psalms: dict[int, Note], bob: User):
    psalms[1].tags = ["another"]
    psalms[1].save()
    Note.objects.create(user=psalms[1].user, title="Missing", content="He is there.")
    Note.objects.create(user=psalms[1].user, title="Blank", content=" ")
    Note.objects.create(user=bob, title="Not counted", content="It is his.")
    assert api.get("/semantic/status").json() == {
        "total_notes": 12,
        "notes_with_embeddings": 9,
        "notes_without_embeddings": 3,
        "current": 9,
        "stale": 1,
        "missing": 1,
        "failed": 0,
        "failures": [],
        "coverage_percent": 81.8,
        "model": "all-MiniLM-L6-v2",
        "dimension": 384,
        "degraded": [],
        "last_job": None,
    }


def test_status_without_notes_is_full_coverage(api: APIClient):
    assert api.get("/semantic/status").json()["coverage_percent"] == 100.0


# --- The plan -------------------------------------------------------------------------------

NOTES_OF_A_BATCH = 50
PASSAGES_OF_A_NOTE = 10
PASSAGES_OF_A_BATCH = NOTES_OF_A_BATCH * PASSAGES_OF_A_NOTE


def fill(users: list[User], batches: int) -> None:
    """As jobs leave the table: a batch of one user's notes, then one of another's."""
    model = serving.default()
    dice = np.random.default_rng(1)
    spans = [Span(n, n + 1) for n in range(PASSAGES_OF_A_NOTE)]
    hashes = ["-"] * PASSAGES_OF_A_NOTE
    for user in users * batches:
        notes = Note.objects.bulk_create(
            Note(user=user, title="A note", content="x" * 20, text_hash="-")
            for _ in range(NOTES_OF_A_BATCH)
        )
        shape = NOTES_OF_A_BATCH, PASSAGES_OF_A_NOTE, 384
        vectors = dice.normal(size=shape).astype(np.float32)
        embedded = (
            EmbeddedNote(note, spans, hashes, own) for note, own in zip(notes, vectors, strict=True)
        )
        with transaction.atomic():
            save_embedded(list(embedded), model)


@pytest.mark.django_db(transaction=True)
def test_a_search_reads_its_users_part_of_the_index_and_nothing_else(alice: User, bob: User):
    """Also where the user has a third of all passages, and some that vacuum has not seen."""
    fill([alice, bob, User.objects.create_user("carol@example.com")], batches=4)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE) passages")
    for batches, heap_fetches in ((4, 0), (5, PASSAGES_OF_A_BATCH)):
        (nodes,) = plans_of(
            lambda: search(client_of(alice), "rest", mode="meaning"), "AS similarity"
        )
        (scan,) = [node for node in nodes if node.get("Relation Name") == "passages"]
        assert (scan["Node Type"], scan["Index Name"]) == ("Index Only Scan", "passages_of_user")
        assert scan["Actual Rows"] == batches * PASSAGES_OF_A_BATCH
        assert heap_fetches <= scan["Heap Fetches"] <= heap_fetches * 1.1
        fill([alice], batches=1)


@pytest.mark.django_db(transaction=True)
def test_a_search_carries_no_vectors_through_memory(alice: User):
    """A user of 10,000 passages in a table where each note seems to have one would be sorted on disk.
    With a sixteenth of the memory, so would one of 2,000."""
    fill([alice], batches=4)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE passages ALTER note_id SET (n_distinct = -1)")
        cursor.execute("VACUUM (ANALYZE) passages")
        cursor.execute("SET work_mem = '256kB'")
        try:
            search_ = partial(search, client_of(alice), "rest", mode="meaning")
            (nodes,) = plans_of(search_, "AS similarity")
        finally:
            cursor.execute("RESET work_mem")
            cursor.execute("ALTER TABLE passages ALTER note_id RESET (n_distinct)")
    assert {node["Temp Written Blocks"] for node in nodes} == {0}
    (grouping,) = [node for node in nodes if node["Node Type"] == "Aggregate"]
    assert grouping["Strategy"] == "Hashed"
