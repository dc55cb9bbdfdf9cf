"""Do searches find what they should? 1,189 chapters of the King James Bible as notes, and the 80
questions of queries.json with the verses that answer them, graded 2 (answers) and 1 (helps).

nDCG@10 with gains of 2 ** grade - 1 (Burges et al. 2005), and recall@10: the part of the chapters
with an answer, of at most ten, that are among the first ten notes found.
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
from notes.embedding import encoder
from notes.indexing import passages_of
from notes.models import Note, Passage, text_hash
from notes.scripture import references
from notes.search import search
from scribes.models import User
from tests.conftest import client_of
from tests.notes.test_indexing import regenerate

QUERIES = json.loads((Path(__file__).parent / "queries.json").read_text())
DEPTH = 10


def chapters() -> Iterator[tuple[str, str]]:
    """Title and text of each, a verse a line."""
    for book in list(pythonbible.Book)[:66]:
        for chapter in range(1, pythonbible.get_number_of_chapters(book) + 1):
            yield f"{book.title} {chapter}", chapter_text(book, chapter)


def chapter_text(book: pythonbible.Book, chapter: int) -> str:
    numbers = range(1, pythonbible.get_number_of_verses(book, chapter) + 1)
    ids = [pythonbible.get_verse_id(book, chapter, number) for number in numbers]
    version = pythonbible.Version.KING_JAMES
    verses = (pythonbible.get_verse_text(verse, version=version) for verse in ids)
    # Square brackets mark the words that the translators added.
    return "\n".join(verses).replace("[", "").replace("]", "")


@pytest.fixture(scope="module")
def reader(django_db_setup, django_db_blocker) -> Iterator[User]:
    """Has all chapters as notes, embedded. Without a transaction around each test, which
    PostgreSQL would end while sentence-transformers is at work."""
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
    """The best grade of each chapter that has an answer."""
    best: dict[str, int] = {}
    for reference, grade in query["answers"].items():
        for verses in references(reference):
            for chapter in range(verses.start // 1000, verses.end // 1000 + 1):
                title = f"{pythonbible.Book(chapter // 1000).title} {chapter % 1000}"
                best[title] = max(grade, best.get(title, 0))
    return best


def found(user: User, text: str, mode: str) -> list[str]:
    result = search(user, text, mode=mode, among=None, limit=DEPTH, offset=0, min_similarity=-1)
    return [hit.note.title for hit in result.hits]


def ndcg(titles: Sequence[str], wanted: dict[str, int]) -> float:
    best = sorted(wanted.values(), reverse=True)[:DEPTH]
    return gain([wanted.get(title, 0) for title in titles]) / gain(best)


def gain(grades: Sequence[int]) -> float:
    return sum((2.0**grade - 1) / math.log2(place + 2) for place, grade in enumerate(grades))


def recall(titles: Sequence[str], wanted: dict[str, int]) -> float:
    return len(set(titles) & set(wanted)) / min(DEPTH, len(wanted))


def measure(user: User, mode: str) -> tuple[float, float]:
    """Mean nDCG and recall."""
    results = [(found(user, query["query"], mode), grades(query)) for query in QUERIES]
    return mean(ndcg(*result) for result in results), mean(recall(*result) for result in results)


@pytest.mark.django_db  # without any such mark, pytest-django makes no database
def test_hybrid_is_no_worse_than_the_better_of_words_and_meaning(
    reader: User, lines: list[tuple[str, ...]]
):
    scores = {mode: measure(reader, mode) for mode in ("words", "meaning", "hybrid")}
    lines += [(mode, f"{n:.3f}", f"{r:.3f}") for mode, (n, r) in scores.items()]
    for measured in (0, 1):
        assert scores["hybrid"][measured] >= max(
            scores["words"][measured], scores["meaning"][measured]
        )


def test_meaning_is_brute_force_over_sentence_transformers(
    reader: User, lines: list[tuple[str, ...]]
):
    """The same passages, embedded by sentence-transformers itself and all compared."""
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
        same += len(set(best) & set(found(reader, query["query"], "meaning")))
        results.append((best, grades(query)))
    scores = (mean(ndcg(*result) for result in results), mean(recall(*r) for r in results))
    lines.append(("brute force by meaning", *(f"{score:.3f}" for score in scores)))
    # Half precision exchanges neighbours whose similarities differ by less than it can tell.
    assert same / (DEPTH * len(QUERIES)) >= 0.99
