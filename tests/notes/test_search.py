"""POST /semantic/search and GET /semantic/status."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from django.db import connection, transaction
from rest_framework.test import APIClient

from notes.embeddings.chunking import Span
from notes.embeddings.encoder import encoder
from notes.embeddings.pipeline import EmbeddedNote, embed_notes
from notes.embeddings.rollout import default_model
from notes.embeddings.store import save_embedded
from notes.models import Note, Passage
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.people import client_of
from tests.helpers.plans import plans_of
from tests.helpers.processes import eventually
from tests.helpers.samples import psalm

PSALMS = (1, 8, 19, 22, 23, 51, 117, 121, 127, 133)


def embed(*notes: Note) -> None:
    model = default_model()
    save_embedded(embed_notes(list(notes), model), model)


@pytest.fixture
def psalms(alice: User) -> dict[int, Note]:
    notes = {n: make_note(alice, **psalm(n)) for n in PSALMS}
    embed(*notes.values())
    return notes


def search(api: APIClient, query: str, **options) -> list[dict[str, Any]]:
    response = api.post("/semantic/search", {"query": query} | options)
    assert response.status_code == 200
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def titles(results: list[dict[str, Any]]) -> list[str]:
    return [result["note"]["title"] for result in results]


def test_search_finds_by_meaning_and_shows_the_passage(api: APIClient, psalms: dict[int, Note]):
    best = search(api, "Good it is when brothers live in peace with each other")[0]
    assert best["note"]["id"] == psalms[133].pk
    assert "content" not in best["note"]
    passage, content = best["passage"], psalms[133].content
    assert passage["text"] == content[passage["char_start"] : passage["char_end"]]
    assert "dwell together in unity" in passage["text"]
    assert 0.3 < best["similarity_score"] <= 1


def test_semantic_search_equals_brute_force(api: APIClient, psalms: dict[int, Note]):
    query = "The heavens tell of God's glory"
    vector = encoder().embed([query])[0]
    best: dict[int, float] = {}
    for passage in Passage.objects.all():
        score = float(np.dot(vector, passage.vector))
        best[passage.note_id] = max(score, best.get(passage.note_id, -1))
    expected = sorted(best.items(), key=lambda item: -item[1])
    found = search(api, query, mode="semantic", min_similarity=-1, limit=100)
    assert [result["note"]["id"] for result in found] == [note for note, _ in expected]
    scores = [result["similarity_score"] for result in found]
    assert scores == pytest.approx([score for _, score in expected], abs=1e-3)


@pytest.mark.parametrize("mode", ["hybrid", "semantic", "keyword"])
def test_search_pages_are_consistent(api: APIClient, psalms: dict[int, Note], mode: str):
    def page(limit: int, offset: int = 0) -> list[tuple[str, float]]:
        query = {"mode": mode, "min_similarity": -1, "limit": limit, "offset": offset}
        return [(r["note"]["title"], r["score"]) for r in search(api, "lord praise", **query)]

    whole = page(len(PSALMS))
    assert [found for offset in (0, 3, 6, 9) for found in page(3, offset)] == whole[:12]
    assert len(dict(whole)) == len(whole) > 3
    assert mode == "keyword" or len(whole) == len(PSALMS)


def test_min_similarity_excludes_weaker_matches(api: APIClient, psalms: dict[int, Note]):
    query = "The Lord is my shepherd"
    scores = [r["similarity_score"] for r in search(api, query, mode="semantic")]
    found = search(api, query, mode="semantic", min_similarity=scores[1] - 1e-6)
    assert [result["similarity_score"] for result in found] == scores[:2]


def test_search_says_what_matched(api: APIClient, psalms: dict[int, Note]):
    new = make_note(psalms[1].user, "Not embedded yet", content="The shepherd's crook.")
    found = {r["note"]["id"]: r for r in search(api, "the shepherd", limit=100)}
    assert found[psalms[23].pk]["matched_by"] == "both"
    assert found[psalms[117].pk]["matched_by"] == "semantic"
    assert (found[new.pk]["matched_by"], found[new.pk]["similarity_score"]) == ("keyword", None)
    assert found[new.pk]["passage"]["text"] == "The shepherd's crook."
    assert "<mark>shepherd</mark>" in found[psalms[23].pk]["passage"]["excerpt"]


def test_hybrid_score_is_the_sum_of_reciprocal_ranks(api: APIClient, psalms: dict[int, Note]):
    places: dict[int, float] = {}
    for mode in ("semantic", "keyword"):
        for place, result in enumerate(search(api, "shepherd", mode=mode, limit=100), 1):
            note = result["note"]["id"]
            places[note] = places.get(note, 0) + 1 / (60 + place)
    hybrid = search(api, "shepherd", limit=100)
    assert {r["note"]["id"]: r["score"] for r in hybrid} == pytest.approx(places)
    assert [r["score"] for r in hybrid] == sorted(places.values(), reverse=True)


def test_search_never_finds_notes_of_other_users(bobs_api: APIClient, psalms: dict[int, Note]):
    assert search(bobs_api, "The Lord is my shepherd", min_similarity=-1) == []


@pytest.mark.parametrize("mode", ["hybrid", "semantic"])
@pytest.mark.parametrize(
    ("exclusion", "gone"),
    [
        ("-waters", {1, 22, 23}),
        ('-"still waters"', {23}),
        ("-“still waters” -brethren", {22, 23, 133}),
        ("-shepherd -the", {23}),
        ('"not -shepherd"', set()),
        ("still-waters - shepherd", set()),
    ],
)
def test_minus_excludes_from_both_searches(
    api: APIClient, psalms: dict[int, Note], mode: str, exclusion: str, gone: set[int]
):
    found = search(
        api, f"a quiet place to rest {exclusion}", mode=mode, min_similarity=-1, limit=100
    )
    assert set(titles(found)) <= {f"Psalm {n}" for n in PSALMS if n not in gone}
    if mode == "semantic":
        assert len(found) == len(PSALMS) - len(gone)


def test_excluded_word_does_not_change_similarity(api: APIClient, psalms: dict[int, Note]):
    plain = search(api, "rest", mode="semantic", min_similarity=-1, limit=100)
    without = search(api, "rest -nicodemus", mode="semantic", min_similarity=-1, limit=100)
    assert [r["similarity_score"] for r in without] == [r["similarity_score"] for r in plain]


@pytest.mark.parametrize("mode", ["hybrid", "semantic"])
def test_exclusion_alone_finds_all_other_notes(api: APIClient, psalms: dict[int, Note], mode: str):
    found = search(api, "-waters", mode=mode, limit=100)
    assert set(titles(found)) == {f"Psalm {n}" for n in PSALMS if n not in (1, 22, 23)}


def test_search_never_finds_deleted_notes_or_old_texts(api: APIClient, psalms: dict[int, Note]):
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
def test_search_refuses_invalid_queries(api: APIClient, body: Any, param: str | None):
    response = api.post("/semantic/search", body)
    assert response.status_code == 400
    assert response.json()["errors"][0].get("param") == param


def test_request_without_user_is_401(db: None):
    assert APIClient().post("/semantic/search", {"query": "a"}).status_code == 401
    assert APIClient().get("/semantic/status").status_code == 401


def test_status_counts_notes_by_state(api: APIClient, psalms: dict[int, Note], bob: User):
    psalms[1].tags = ["another"]
    psalms[1].save()
    make_note(psalms[1].user, "Missing")
    make_note(psalms[1].user, "Blank", content=" ")
    make_note(bob, "Not counted")
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


# --- Query plans ----------------------------------------------------------------------------

NOTES_PER_BATCH = 50
PASSAGES_PER_NOTE = 10
PASSAGES_PER_BATCH = NOTES_PER_BATCH * PASSAGES_PER_NOTE


def fill(users: list[User], batches: int) -> None:
    """Fill the table as jobs do: a batch of notes of one user, then one of the next user."""
    model = default_model()
    dice = np.random.default_rng(1)
    spans = [Span(n, n + 1) for n in range(PASSAGES_PER_NOTE)]
    hashes = ["-"] * PASSAGES_PER_NOTE
    for user in users * batches:
        notes = Note.objects.bulk_create(
            Note(user=user, title="A note", content="x" * 20, text_hash="-")
            for _ in range(NOTES_PER_BATCH)
        )
        shape = NOTES_PER_BATCH, PASSAGES_PER_NOTE, 384
        vectors = dice.normal(size=shape).astype(np.float32)
        embedded = (
            EmbeddedNote(note, spans, hashes, own) for note, own in zip(notes, vectors, strict=True)
        )
        with transaction.atomic():
            save_embedded(list(embedded), model)


def vacuum_all_passages() -> bool:
    """Whether vacuum could process all pages: a transaction at the same time may keep it from some."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE) passages")
        cursor.execute(
            "SELECT relallvisible = relpages FROM pg_class WHERE oid = 'passages'::regclass"
        )
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_search_reads_only_index_entries_of_its_user(alice: User, bob: User):
    """Even if the user has a third of all passages, and some that vacuum has not processed yet."""
    fill([alice, bob, User.objects.create_user("carol@example.com")], batches=4)
    eventually(vacuum_all_passages)
    for batches, heap_fetches in ((4, 0), (5, PASSAGES_PER_BATCH)):
        (nodes,) = plans_of(
            lambda: search(client_of(alice), "rest", mode="semantic"), "AS similarity"
        )
        (scan,) = [node for node in nodes if node.get("Relation Name") == "passages"]
        assert (scan["Node Type"], scan["Index Name"]) == ("Index Only Scan", "passages_of_user")
        assert scan["Actual Rows"] == batches * PASSAGES_PER_BATCH
        assert heap_fetches <= scan["Heap Fetches"] <= heap_fetches * 1.1
        fill([alice], batches=1)


@pytest.mark.django_db(transaction=True)
def test_search_sorts_no_vectors_on_disk(alice: User):
    """PostgreSQL would sort 10,000 passages on disk if it assumed that each note has only one. With a
    sixteenth of the memory, this holds for 2,000 passages."""
    fill([alice], batches=4)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE passages ALTER note_id SET (n_distinct = -1)")
        cursor.execute("VACUUM (ANALYZE) passages")
        cursor.execute("SET work_mem = '256kB'")
        try:
            run_search = partial(search, client_of(alice), "rest", mode="semantic")
            (nodes,) = plans_of(run_search, "AS similarity")
        finally:
            cursor.execute("RESET work_mem")
            cursor.execute("ALTER TABLE passages ALTER note_id RESET (n_distinct)")
    assert {node["Temp Written Blocks"] for node in nodes} == {0}
    (grouping,) = [node for node in nodes if node["Node Type"] == "Aggregate"]
    assert grouping["Strategy"] == "Hashed"
