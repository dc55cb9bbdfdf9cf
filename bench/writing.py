"""Vectors -> rows, and what notes cost that have vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import numpy as np
from django.db import transaction
from pgvector import HalfVector

from bench import corpus
from bench.measure import Line, as_fast, duration, faster, medians, seconds, told
from notes import serving
from notes.embedding import encoder
from notes.engines import Vectors
from notes.indexing import EmbeddedNote, save_embedded
from notes.models import Note, Passage
from notes.passages import Span
from scribes.models import User

NOTES = 1000
EDITS = 200
READS = 20


def run() -> Iterator[Line]:
    texts = corpus.texts(NOTES)
    vectors = encoder().embed(texts)
    ours, peers, without = (
        corpus.make_notes(User.objects.create_user(f"{name}@example.com"), texts)
        for name in ("ours", "peer", "without")
    )
    write(embedded(ours, vectors))
    write(embedded(peers, vectors))
    yield from vectors_are_written(ours, peers, vectors)
    yield from notes_cost_no_more(ours, without)


def embedded(notes: list[Note], vectors: Vectors) -> list[EmbeddedNote]:
    """One passage a note here."""
    return [
        EmbeddedNote(note, [Span(0, len(note.content))], ["-"], vectors[n : n + 1])
        for n, note in enumerate(notes)
    ]


def write(embedded: list[EmbeddedNote]) -> None:
    """As a batch of a job does."""
    with transaction.atomic():
        save_embedded(embedded, serving.default())


def vectors_are_written(ours: list[Note], peers: list[Note], vectors: Vectors) -> Iterator[Line]:
    """All replace as many vectors, in one transaction. Batches of 100 are the peer's quickest."""
    passages = list(Passage.objects.filter(note__in=peers).order_by("note"))
    for passage, vector in zip(passages, vectors, strict=True):
        passage.vector = HalfVector(vector.astype(np.float16))

    def peer(batch_size: int | None) -> None:
        with transaction.atomic():
            Passage.objects.bulk_update(passages, ["vector"], batch_size=batch_size)

    own, at_once, in_batches = medians(
        partial(write, embedded(ours, vectors)), partial(peer, None), partial(peer, 100)
    )
    what = f"write {len(ours):,} vectors in place of older ones"
    yield faster(10, what, own, "Django bulk_update", at_once)
    times = (duration(own), "bulk_update(batch_size=100)", duration(in_batches))
    yield told(what, *times, in_batches / own)


def notes_cost_no_more(ours: list[Note], without: list[Note]) -> Iterator[Line]:
    """Each note is edited once by each kind of edit, in turn with one that has no vectors."""
    kinds: dict[str, Callable[[Note], object]] = {
        f"read {READS} notes": read,
        "edit the title of a note": retitle,
        "edit the text of a note": extend,
    }
    for what, work in kinds.items():
        pairs = list(zip(ours, without, strict=True))[:EDITS]
        times = [(seconds(partial(work, a)), seconds(partial(work, b))) for a, b in pairs]
        own, theirs = map(median, zip(*times, strict=True))
        yield as_fast(1.1, f"{what} with vectors", own, "without vectors", theirs)


def read(note: Note) -> None:
    list(Note.objects.filter(user_id=note.user_id)[:READS])


def retitle(note: Note) -> None:
    note.title += "!"
    note.save()


def extend(note: Note) -> None:
    note.content += " Amen."
    note.save()
