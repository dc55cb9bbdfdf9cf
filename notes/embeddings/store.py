"""Writes embedded notes to the database."""

from __future__ import annotations

from django.db import connection, transaction
from django.db.models import Exists, OuterRef

from notes.embeddings.chunking import headings_at
from notes.embeddings.engines import Vectors
from notes.embeddings.pipeline import EmbeddedNote
from notes.embeddings.rollout import target_model_ids
from notes.models import FIRST_PART_ORDINAL, EmbeddingModel, Note, Passage
from notes.pending_embeddings import PendingEmbedding

# The columns of passages in the order of the table, with the types that COPY sends.
PASSAGE_COLUMNS = {
    "note_id": "int8",
    "user_id": "int8",
    "model_id": "int4",
    "ordinal": "int4",
    "char_start": "int4",
    "char_end": "int4",
    "current": "bool",
    "text_hash": "text",
    # PostgreSQL reads these bytes as a halfvec: see _halfvec_bytes.
    "vector": "bytea",
    "heading": "text",
}


def save_embedded(embedded: list[EmbeddedNote], model: EmbeddingModel) -> int:
    """Replace the passages of these notes, in the caller's transaction.

    Returns the number of notes whose passages were written. A note that was edited or deleted after
    it was read keeps what it has: vectors of an old text never replace those of a newer one. The
    notes stay locked until the transaction ends. Nothing is written for users who need no vectors of
    this model any more.
    """
    users = sorted({result.note.user_id for result in embedded})
    targets = {user_id: target_model_ids(user_id, model) for user_id in users}
    notes = [result.note for result in embedded if targets[result.note.user_id]]
    unchanged = _lock_unchanged(notes)
    Passage.objects.filter(note__any_of=unchanged, model=model).delete()
    written = [result for result in embedded if result.note.pk in unchanged and result.spans]
    _copy_passages(written, model)
    for user_id, model_ids in targets.items():
        own = {note.pk for note in notes if note.user_id == user_id}
        _delete_completed(own & unchanged, model_ids)
    return len(written)


def _lock_unchanged(notes: list[Note]) -> set[int]:
    """Lock these notes; the ids of those whose text is still the same."""
    ids = [note.pk for note in notes]
    locked = Note.objects.select_for_update(no_key=True).filter(pk__any_of=ids).order_by("pk")
    text_hashes = dict(locked.values_list("pk", "text_hash"))
    return {note.pk for note in notes if text_hashes.get(note.pk) == note.text_hash}


def _delete_completed(note_ids: set[int], model_ids: list[int]) -> None:
    """Notes that have vectors of all these models, or no text, are no longer pending."""
    completed = PendingEmbedding.objects.filter(note__any_of=note_ids)
    is_blank = Exists(Note.objects.filter(pk=OuterRef("pk"), has_text=False))
    for model_id in model_ids:
        current = Passage.objects.filter(note=OuterRef("pk"), model=model_id, current=True)
        completed = completed.filter(Exists(current) | is_blank)
    completed.delete()


def keep_part(parts: list[EmbeddedNote], model: EmbeddingModel) -> None:
    """Keep the vectors of a part of each note's passages for the next call of embed_notes.

    They are deleted when the note is complete. Nothing is kept of notes that were edited meanwhile.
    """
    with transaction.atomic():
        unchanged = _lock_unchanged([part.note for part in parts])
        kept = [part for part in parts if part.note.pk in unchanged]
        for part in kept:
            ordinals = [FIRST_PART_ORDINAL + span.start for span in part.spans]
            Passage.objects.filter(note=part.note, model=model, ordinal__in=ordinals).delete()
        _copy_passages(kept, model, is_part=True)


def _copy_passages(
    embedded: list[EmbeddedNote], model: EmbeddingModel, *, is_part: bool = False
) -> None:
    statement = f"COPY passages ({', '.join(PASSAGE_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(list(PASSAGE_COLUMNS.values()))
        for note, spans, text_hashes, vectors in embedded:
            owner = note.pk, note.user_id, model.pk
            headings = headings_at(note.content, [span.start for span in spans])
            rows = zip(spans, text_hashes, _halfvec_bytes(vectors), headings, strict=True)
            for number, (span, *columns) in enumerate(rows):
                ordinal = FIRST_PART_ORDINAL + span.start if is_part else number
                copy.write_row((*owner, ordinal, span.start, span.end, not is_part, *columns))


def _halfvec_bytes(vectors: Vectors) -> list[bytes]:
    """pgvector's binary format (halfvec_recv): dimension, two unused bytes, numbers; big-endian."""
    head = vectors.shape[1].to_bytes(2, "big") + b"\0\0"
    return [head + row.tobytes() for row in vectors.astype(">f2")]
