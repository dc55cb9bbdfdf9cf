"""Writing vectors, and what vectors cost when notes are read and edited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import numpy as np
from django.db import transaction
from pgvector import HalfVector

from bench import corpus
from bench.measure import Line, duration, faster, medians, no_target, not_slower, seconds
from notes.embeddings.chunking import Span
from notes.embeddings.encoder import encoder
from notes.embeddings.engines import Vectors
from notes.embeddings.pipeline import EmbeddedNote
from notes.embeddings.rollout import default_model
from notes.embeddings.store import save_embedded
from notes.models import Note, Passage
from scribes.models import User

NOTES = 1000
EDITS = 200
READS = 20


def run() -> Iterator[Line]:
    texts = corpus.texts(NOTES)
    vectors = encoder().embed(texts)
    ours, theirs, without = (
        corpus.make_notes(User.objects.create_user(f"{name}@example.com"), texts)
        for name in ("ours", "theirs", "without")
    )
    save(embedded(ours, vectors))
    save(embedded(theirs, vectors))
    yield from replacing_vectors(ours, theirs, vectors)
    yield from reading_and_editing(ours, without)


def embedded(notes: list[Note], vectors: Vectors) -> list[EmbeddedNote]:
    """The notes with one passage each."""
    return [
        EmbeddedNote(note, [Span(0, len(note.content))], ["-"], vectors[n : n + 1])
        for n, note in enumerate(notes)
    ]


def save(notes: list[EmbeddedNote]) -> None:
    """Write the vectors as a batch of a job does."""
    with transaction.atomic():
        save_embedded(notes, default_model())


def replacing_vectors(ours: list[Note], theirs: list[Note], vectors: Vectors) -> Iterator[Line]:
    """Each way replaces all vectors in one transaction. The peer is fastest in batches of 100."""
    passages = list(Passage.objects.filter(note__in=theirs).order_by("note"))
    for passage, vector in zip(passages, vectors, strict=True):
        passage.vector = HalfVector(vector.astype(np.float16))

    def bulk_update(batch_size: int | None) -> None:
        with transaction.atomic():
            Passage.objects.bulk_update(passages, ["vector"], batch_size=batch_size)

    own, all_at_once, in_batches = medians(
        partial(save, embedded(ours, vectors)),
        partial(bulk_update, None),
        partial(bulk_update, 100),
    )
    title = f"replace {len(ours):,} vectors"
    yield faster(10, title, own, "Django's bulk_update", all_at_once)
    times = (duration(own), "Django's bulk_update(batch_size=100)", duration(in_batches))
    yield no_target(title, *times, in_batches / own)


def reading_and_editing(ours: list[Note], without: list[Note]) -> Iterator[Line]:
    """Each note with vectors is timed in turn with one without vectors."""
    works: dict[str, Callable[[Note], object]] = {
        f"read {READS} notes": read,
        "edit the title of a note": edit_title,
        "edit the text of a note": edit_text,
    }
    for name, work in works.items():
        pairs = list(zip(ours, without, strict=True))[:EDITS]
        times = [(seconds(partial(work, a)), seconds(partial(work, b))) for a, b in pairs]
        own, theirs = map(median, zip(*times, strict=True))
        yield not_slower(1.1, f"{name} with vectors", own, "without vectors", theirs)


def read(note: Note) -> None:
    list(Note.objects.filter(user_id=note.user_id)[:READS])


def edit_title(note: Note) -> None:
    note.title += "!"
    note.save()


def edit_text(note: Note) -> None:
    note.content += " Amen."
    note.save()
