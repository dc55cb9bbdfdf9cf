"""The quality of searches over the 1,189 chapters of the King James Bible as notes.

queries.json has 80 questions with the verses that answer them, graded 2 (answers the question) or 1
(helps). The measures are nDCG@10 with gains of 2 ** grade - 1 (Burges et al. 2005), and recall@10:
the share of the chapters with an answer, of at most ten, that are among the first ten results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import pythonbible
from sentence_transformers import SentenceTransformer

from jobs.models import BackgroundJob
from notes.embeddings.encoder import encoder
from notes.embeddings.pipeline import passages_of
from notes.models import Note, Passage, text_hash
from notes.scripture.references import find_references
from notes.scripture.verse_range import CHAPTER_SIZE
from notes.search.ranking import search
from scribes.models import User
from tests.helpers.jobs import regenerate
from tests.helpers.people import client_of
from tests.helpers.samples import chapter_verses

QUERIES = json.loads((Path(__file__).parent / "queries.json").read_text())
DEPTH = 10


def chapters() -> Iterator[tuple[str, str]]:
    """Title and text of each chapter, one verse per line."""
    for book in list(pythonbible.Book)[:66]:
        for chapter in range(1, pythonbible.get_number_of_chapters(book) + 1):
            yield f"{book.title} {chapter}", "\n".join(chapter_verses(book, chapter))


@pytest.fixture(scope="module")
def reader(django_db_setup, django_db_blocker) -> Iterator[User]:
    """A user with all chapters as embedded notes.

    Not in a transaction, which PostgreSQL would end while sentence-transformers is working.
    """
    with django_db_blocker.unblock():
        user = User.objects.create_user("reader@example.com")
        notes = [Note(user=user, title=title, content=text) for title, text in chapters()]
        for note in notes:
            note.text_hash = text_hash(note)
        Note.objects.bulk_create(notes)
        job = regenerate(client_of(user))
        assert (job.status, job.processed_items) == (BackgroundJob.Status.COMPLETED, 1189)
        yield user
        user.delete()


def grades(query: dict[str, dict[str, int]]) -> dict[str, int]:
    """The best grade of each chapter that has an answer, by title."""
    best: dict[str, int] = {}
    for reference, grade in query["answers"].items():
        for verses in find_references(reference):
            for chapter in range(verses.start // CHAPTER_SIZE, verses.end // CHAPTER_SIZE + 1):
                title = f"{pythonbible.Book(chapter // 1000).title} {chapter % 1000}"
                best[title] = max(grade, best.get(title, 0))
    return best


def found(user: User, text: str, mode: str) -> list[str]:
    page = search(user, text, mode=mode, candidates=None, limit=DEPTH, offset=0, min_similarity=-1)
    return [hit.note.title for hit in page.hits]


def ndcg(titles: Sequence[str], relevant: dict[str, int]) -> float:
    best = sorted(relevant.values(), reverse=True)[:DEPTH]
    return gain([relevant.get(title, 0) for title in titles]) / gain(best)


def gain(grades: Sequence[int]) -> float:
    return sum((2.0**grade - 1) / math.log2(place + 2) for place, grade in enumerate(grades))


def recall(titles: Sequence[str], relevant: dict[str, int]) -> float:
    return len(set(titles) & set(relevant)) / min(DEPTH, len(relevant))


def measure(user: User, mode: str) -> tuple[float, float]:
    """Mean nDCG and recall."""
    results = [(found(user, query["query"], mode), grades(query)) for query in QUERIES]
    return mean(ndcg(*result) for result in results), mean(recall(*result) for result in results)


@pytest.mark.django_db  # without this mark, pytest-django creates no database
def test_hybrid_is_as_good_as_the_better_single_search(reader: User, table: list[tuple[str, ...]]):
    scores = {mode: measure(reader, mode) for mode in ("keyword", "semantic", "hybrid")}
    table += [(mode, f"{n:.3f}", f"{r:.3f}") for mode, (n, r) in scores.items()]
    for measure_index in (0, 1):
        assert scores["hybrid"][measure_index] >= max(
            scores["keyword"][measure_index], scores["semantic"][measure_index]
        )


def test_semantic_search_equals_brute_force(reader: User, table: list[tuple[str, ...]]):
    """sentence-transformers itself embeds the same passages, and all are compared."""
    reference = SentenceTransformer(str(encoder().path), device="cpu")
    owners, texts = [], []
    for note in Note.objects.for_user(reader):
        own = passages_of(note, encoder())[1]
        owners += [note.title] * len(own)
        texts += own
    assert len(texts) == Passage.objects.filter(user=reader).count()
    vectors = reference.encode(texts, batch_size=64)
    same = 0
    results = []
    for query in QUERIES:
        order = np.argsort(-vectors @ reference.encode(query["query"]))
        best = list(dict.fromkeys(owners[place] for place in order))[:DEPTH]
        same += len(set(best) & set(found(reader, query["query"], "semantic")))
        results.append((best, grades(query)))
    scores = (mean(ndcg(*result) for result in results), mean(recall(*r) for r in results))
    table.append(("brute force, semantic", *(f"{score:.3f}" for score in scores)))
    # Half precision may swap neighbours with almost equal similarities.
    assert same / (DEPTH * len(QUERIES)) >= 0.99
