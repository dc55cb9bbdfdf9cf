"""Write, embed, search, edit and delete notes over HTTP, with a real web process and worker."""

from __future__ import annotations

from functools import partial
from threading import Event
from typing import Any

import pytest

from notes.models import Note, Passage
from notes.pending_embeddings import PendingEmbedding
from tests.helpers.processes import Process, eventually, run_concurrently
from tests.helpers.samples import psalm
from tests.helpers.servers import Web

PSALMS = range(1, 31)
EDITS_PER_SECOND = 20


@pytest.fixture
def web(web: Web) -> Web:
    web.sign_up("alice@example.com")
    return web


def search(web: Web, query: str, **options) -> list[dict[str, Any]]:
    answer = web.post("/semantic/search", json={"query": query} | options)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["degraded"] == []
    results: list[dict[str, Any]] = body["results"]
    return results


def titles(results: list[dict[str, Any]]) -> list[str]:
    return [result["note"]["title"] for result in results]


def save(web: Web, note: dict[str, Any]) -> int:
    answer = web.post("/notes", json=note)
    assert answer.status_code == 201, answer.text
    note_id: int = answer.json()["id"]
    return note_id


def test_notes_are_found_from_creation_to_deletion(web: Web, worker: Process):
    ids = {number: save(web, psalm(number)) for number in PSALMS}
    assert "Psalm 23" in titles(search(web, "shepherd", mode="keyword"))
    eventually(lambda: web.get("/semantic/status").json()["current"] == len(PSALMS))
    assert_found_by_both_searches(web)
    assert_filters_apply_to_all_searches(web)
    assert_similar(web, ids)
    edit_while_embedding(web, ids)
    assert_nothing_is_stale(web)
    assert_found_by_new_text(web, ids[1])
    assert_deleted_notes_are_not_found(web, ids)


def assert_found_by_both_searches(web: Web) -> None:
    best = search(web, "The Lord looks after me like a shepherd")[0]
    assert (best["note"]["title"], best["matched_by"]) == ("Psalm 23", "both")
    assert "<mark>shepherd</mark>" in best["passage"]["excerpt"]
    content = web.get(f"/notes/{best['note']['id']}").json()["content"]
    passage = best["passage"]
    assert passage["text"] == content[passage["char_start"] : passage["char_end"]]


def assert_filters_apply_to_all_searches(web: Web) -> None:
    fields = {"tags": ["sunday"], "preacher": "C. H. Spurgeon", "scripture_refs": "Jn 3:14-21; Foo"}
    note = {"title": "Born again", "content": "A man who came by night."}
    answer = web.post("/notes", json=note | fields).json()
    assert answer["warnings"] == ["scripture_refs: “Foo” is not a scripture reference."]
    filters = {"tags": ["sunday"], "preacher": "spurgeon", "scripture": "John 3:16"}
    for mode in ("hybrid", "keyword"):
        assert titles(search(web, "night", mode=mode, **filters)) == ["Born again"]
    eventually(lambda: titles(search(web, "darkness", mode="semantic", **filters)))
    assert search(web, "night", **filters, date_to="2000-01-01") == []
    listed = web.get("/notes", params=filters | {"ordering": "title"}).json()
    assert [note["title"] for note in listed["notes"]] == ["Born again"]
    web.delete(f"/notes/{answer['id']}")


def assert_similar(web: Web, ids: dict[int, int]) -> None:
    results = web.get(f"/semantic/similar/{ids[14]}?limit=5").json()["results"]
    assert len(results) == 5
    assert ids[14] not in [result["note"]["id"] for result in results]


def edit_while_embedding(web: Web, ids: dict[int, int]) -> None:
    """Two threads edit notes until the jobs of a third one have ended."""
    ended = Event()

    def edit_or_embed(number: int) -> None:
        own = Web(web.url)
        own.session.headers.update(web.session.headers)
        with own.session:
            if number == 0:
                embed_all(own)
                ended.set()
            turn = number
            while number and not ended.wait(2 / EDITS_PER_SECOND):
                turn += 2
                note_id = ids[PSALMS[turn % len(PSALMS)]]
                edited = {"content": f"Edit {turn}.\n\n" + psalm(23)["content"]}
                assert own.patch(f"/notes/{note_id}", json=edited).status_code == 200

    run_concurrently(3, edit_or_embed)


def embed_all(web: Web) -> None:
    for _ in range(3):
        job_id = web.post("/semantic/regenerate-embeddings").json()["task_id"]
        eventually(partial(has_ended, web, job_id))


def has_ended(web: Web, job_id: str) -> bool:
    job = web.get(f"/jobs/{job_id}").json()
    assert job["status"] in ("queued", "running", "completed")
    return job["completed_at"] is not None


def assert_nothing_is_stale(web: Web) -> None:
    eventually(lambda: not PendingEmbedding.objects.exists())
    status = web.get("/semantic/status").json()
    assert (status["stale"], status["missing"], status["failed"]) == (0, 0, 0)
    assert (status["current"], status["coverage_percent"]) == (len(PSALMS), 100.0)
    assert not Passage.objects.filter(current=False).exists()
    edited = Note.objects.filter(content__startswith="Edit ")
    assert edited.count() > 10
    for note in Note.objects.all():
        last = note.passages.latest("ordinal")
        assert last.char_end == len(note.content.rstrip())


def assert_found_by_new_text(web: Web, note_id: int) -> None:
    web.patch(f"/notes/{note_id}", json={"content": "A sower went out to sow his seed."})
    ask = partial(search, web, "a farmer in the field", mode="semantic", limit=1)
    eventually(lambda: titles(ask()) == ["Psalm 1"])
    assert "sower" in ask()[0]["passage"]["text"]


def assert_deleted_notes_are_not_found(web: Web, ids: dict[int, int]) -> None:
    for note_id in ids.values():
        assert web.delete(f"/notes/{note_id}").status_code == 204
    for mode in ("hybrid", "semantic", "keyword"):
        assert search(web, "shepherd", mode=mode, min_similarity=-1) == []
