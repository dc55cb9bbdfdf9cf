"""Notes -> passages -> vectors -> rows: one note when it is saved, all of them by a job."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
from django.db import connection, transaction
from django.db.models import Count, Exists, FloatField, OuterRef, Q, Sum, Value
from django.db.models.functions import Ceil, Length, Now

from jobs.estimate import items_per_second
from jobs.models import BackgroundJob
from jobs.runner import Renew, enqueue, publish
from notes import passages, scripture, serving
from notes.embedding import Encoder
from notes.engines import Vectors
from notes.models import (
    EmbeddingDue,
    EmbeddingModel,
    Note,
    NoteQuerySet,
    Passage,
    ScriptureReference,
    ServedModel,
)
from scribes.models import User

# Of a passage's tokens, at most this part goes to the note's keywords.
KEYWORDS_SHARE = 0.25
# Smaller passages are found more surely; larger ones tell more. Both measured: docs/search.md.
PASSAGE_TOKENS = 128
OVERLAP_TOKENS = 16
# The model's marks for begin and end.
MARKS = 2
# Of English text, where passages end with sentences. Only for estimates.
CHARACTERS_PER_PASSAGE = 400

# A note that is due for so long has lost its message; one that a job was made for gets another.
DUE_SECONDS = 60
DUE_AGAIN_SECONDS = 3600
DUE_NOTES_AT_ONCE = 10_000


class EmbeddedNote(NamedTuple):
    note: Note
    spans: list[passages.Span]
    hashes: list[str]
    """Of the texts that were embedded."""
    vectors: Vectors
    """float32 [len(spans), dimension]"""


Embedded = list[tuple[EmbeddingModel, list[EmbeddedNote]]]


# --- The jobs -------------------------------------------------------------------------------


class EmbeddingRegeneration:
    """Job type: embeds all notes of a user anew. An item is a note.

    The parameter `model` is the version of a notes.models.EmbeddingModel that the user is to go over
    to; without it, it is the one that the user's searches use. Skipped: notes that are blank, that
    were deleted meanwhile, or whose text changed between reading and writing.
    """

    name = "embedding_regeneration"
    title = "regenerate-embeddings"
    items = "notes"
    queue = "embeddings"
    # In characters: about what a hundred ordinary notes hold, and a minute's work.
    max_batch_weight = 500_000

    def plan(self, job: BackgroundJob) -> Iterable[tuple[int, int]]:
        notes = Note.objects.for_user(job.user)
        if "model" in job.parameters:
            serving.begin(job.user, _model(job.user, job.parameters))
        if job.parameters.get("only_stale"):
            notes = notes.stale(_model(job.user, job.parameters))
        return _weighed(notes)

    def weigh(self, job: BackgroundJob, item_ids: Sequence[int]) -> Iterable[tuple[int, int]]:
        return _weighed(Note.objects.for_user(job.user).filter(pk__in=item_ids))

    def compute(self, job: BackgroundJob, item_ids: Sequence[int], renew: Renew) -> Embedded:
        model = _model(job.user, job.parameters)
        return [(model, embed_notes(_notes(item_ids), model, renew))]

    def save(self, job: BackgroundJob, results: Embedded) -> int:
        """With the models that computed them: the user's may be another by now."""
        return max(save_embedded(notes, model) for model, notes in results)

    def finish(self, job: BackgroundJob) -> dict[str, Any]:
        _remember_failures(job)
        return {
            "model": serving.name_of(job.user, job.parameters.get("model")),
            "embedded_notes": job.processed_items,
            "skipped_notes": job.skipped_items,
            "failed_notes": job.failed_items,
            "switched": serving.go_over(job.user),
        }


class EmbeddingUpdate(EmbeddingRegeneration):
    """Job type: embeds notes whose embedding is due, where nothing came of the message.

    A type of its own, so that one of them is never taken for the regeneration somebody asked for.
    """

    name = "embedding_update"
    title = "update-embeddings"

    def compute(self, job: BackgroundJob, item_ids: Sequence[int], renew: Renew) -> Embedded:
        return _embed_for_all_models(job.user, _notes(item_ids), renew)


JOB_TYPES = (EmbeddingRegeneration.name, EmbeddingUpdate.name)


def _model(user: User, parameters: dict[str, Any]) -> EmbeddingModel:
    if version := parameters.get("model"):
        return EmbeddingModel.objects.get(version=version)
    return serving.of(user)


def _notes(ids: Sequence[int]) -> list[Note]:
    return list(Note.objects.filter(pk__any_of=ids).order_by("pk"))


def _weighed(notes: NoteQuerySet) -> Iterable[tuple[int, int]]:
    return notes.order_by("pk").values_list("pk", Length("content"))


def estimate(user: User, parameters: dict[str, Any]) -> dict[str, int | None]:
    """How many notes and about how many passages a job with these parameters would embed, and in
    about how many seconds, as fast as the latest jobs went. Raises ModelUnavailable."""
    notes = Note.objects.for_user(user).with_text()
    if "item_ids" in parameters:
        notes = notes.filter(pk__in=parameters["item_ids"])
    elif parameters.get("only_stale"):
        notes = notes.stale(_model(user, parameters))
    passages = Ceil(Length("content") / Value(CHARACTERS_PER_PASSAGE, FloatField()))
    total = notes.aggregate(notes=Count("pk"), passages=Sum(passages, default=0))
    speed = items_per_second(EmbeddingRegeneration.name)
    return {
        "notes": total["notes"],
        "passages": int(total["passages"]),
        "seconds": round(total["notes"] / speed) if speed else None,
    }


# --- One note -------------------------------------------------------------------------------


def text_changed(note: Note) -> None:
    """In the transaction that saves the note with another text, or for the first time."""
    from notes.tasks import embed_note

    note.passages.filter(current=True).update(current=False)
    note.references.all().delete()
    ScriptureReference.objects.bulk_create(
        ScriptureReference(
            note=note, user_id=note.user_id, start_verse=verses.start, end_verse=verses.end
        )
        for verses in scripture.references(note.scripture_refs, note.content)
    )
    make_due([note])
    publish(embed_note, note.pk, queue="default", says=f"embed-note {note.pk}")


def make_due(notes: Iterable[Note]) -> None:
    EmbeddingDue.objects.bulk_create(
        (EmbeddingDue(note=note, since=Now()) for note in notes),
        update_conflicts=True,
        unique_fields=["note"],
        update_fields=["since", "handed_over_at", "error_class", "error"],
    )


def embed_due_note(note_id: int) -> None:
    """Embed a note, if that is due still. Passages that did not change are not embedded again."""
    note = Note.objects.filter(pk=note_id, due__isnull=False).select_related("user").first()
    if note is None:
        return
    embedded = _embed_for_all_models(note.user, [note])
    with transaction.atomic():
        for model, notes in embedded:
            save_embedded(notes, model)


def _embed_for_all_models(user: User, notes: list[Note], renew: Renew = lambda: None) -> Embedded:
    return [
        (model, embed_notes(notes, model, renew, reuse=True)) for model in serving.targets(user)
    ]


def hand_over_due_notes() -> None:
    """Make jobs of the notes whose message was lost or failed.

    A note that fails in the job, too, gets another after DUE_AGAIN_SECONDS.
    """
    waiting = Q(handed_over_at=None) | Q(
        handed_over_at__lt=Now() - timedelta(seconds=DUE_AGAIN_SECONDS)
    )
    due = EmbeddingDue.objects.filter(waiting, since__lt=Now() - timedelta(seconds=DUE_SECONDS))
    # One user with many must not keep everybody else's waiting.
    busy = BackgroundJob.objects.active().filter(
        user=OuterRef("note__user"), job_type=EmbeddingUpdate.name
    )
    due = due.filter(~Exists(busy))
    by_user: dict[int, list[int]] = defaultdict(list)
    oldest = due.order_by("since").values_list("note__user", "note")[:DUE_NOTES_AT_ONCE]
    for user_id, note_id in oldest:
        by_user[user_id].append(note_id)
    for user in User.objects.filter(pk__in=by_user):
        with transaction.atomic():
            _, is_new = enqueue(user, EmbeddingUpdate.name, {"item_ids": by_user[user.pk]})
            if is_new:
                EmbeddingDue.objects.filter(pk__in=by_user[user.pk]).update(handed_over_at=Now())


def continue_going_over() -> None:
    """Users go over to their next model. Where it lacks vectors of notes that are not due by
    themselves, since a job ended before its time, they get a job for them."""
    busy = BackgroundJob.objects.active().filter(user=OuterRef("user"))
    served_models = ServedModel.objects.filter(~Exists(busy), next__isnull=False)
    for served in served_models.select_related("user", "next"):
        if served.next and not _abandoned(served.user, served.next):
            stale = Note.objects.for_user(served.user).stale(served.next)
            if not serving.go_over(served.user) and stale.filter(due=None).exists():
                parameters = {"only_stale": True, "model": served.next.version}
                enqueue(served.user, EmbeddingRegeneration.name, parameters)


def _abandoned(user: User, model: EmbeddingModel) -> bool:
    """Whoever cancels the job cancels the change of the model."""
    jobs = BackgroundJob.objects.for_user(user).filter(parameters__model=model.version)
    latest = jobs.first()
    cancelled = latest is not None and latest.status == BackgroundJob.Status.CANCELLED
    return cancelled and serving.abandon(user)


def _remember_failures(job: BackgroundJob) -> None:
    """The notes that failed in a job are due, with the reason: the job itself is not kept for long.

    Not those that were edited since it was asked for, nor those that somebody is at: what
    comes of their new text is not known yet.
    """
    failures = {failure.item_id: failure for failure in job.failures.all()}
    failed = Note.objects.filter(pk__in=failures, updated_at__lte=job.created_at).only("pk")
    locked = failed.select_for_update(no_key=True, skip_locked=True).order_by("pk")
    EmbeddingDue.objects.bulk_create(
        (
            EmbeddingDue(
                note=note,
                since=Now(),
                handed_over_at=Now(),
                error_class=failures[note.pk].error_class,
                error=failures[note.pk].message,
            )
            for note in locked
        ),
        update_conflicts=True,
        unique_fields=["note"],
        update_fields=["handed_over_at", "error_class", "error"],
    )


# --- Text -> vectors ------------------------------------------------------------------------


def embed_notes(
    notes: list[Note], model: EmbeddingModel, renew: Renew = lambda: None, *, reuse: bool = False
) -> list[EmbeddedNote]:
    """The passages of these notes with their vectors. A blank note has none.

    With `reuse`, a text that the note's passages had before is not embedded again. Raises
    ModelUnavailable.
    """
    encoder = serving.encoder_of(model)
    cut = []
    for note in notes:
        renew()
        cut.append(_cut(note, encoder))
    texts = {key: text for part in cut for key, text in zip(part.hashes, part.texts, strict=True)}
    vectors = _vectors_by_hash(notes, model) if reuse else {}
    missing = [key for key in texts if key not in vectors]
    made = encoder.embed([texts[key] for key in missing], renew)
    vectors |= zip(missing, made, strict=True)
    return [
        EmbeddedNote(note, part.spans, part.hashes, _stacked(part.hashes, vectors, made))
        for note, part in zip(notes, cut, strict=True)
    ]


class _Cut(NamedTuple):
    """A note's passages: where they stand, what is embedded of them, and its SHA-256 in hex."""

    spans: list[passages.Span]
    texts: list[str]
    hashes: list[str]


def _cut(note: Note, encoder: Encoder) -> _Cut:
    spans, texts = passages_of(note, encoder)
    return _Cut(spans, texts, [hashlib.sha256(text.encode()).hexdigest() for text in texts])


def passages_of(note: Note, encoder: Encoder) -> tuple[list[passages.Span], list[str]]:
    """A note's passages, and what is embedded of each: heading, text, and the note's keywords.

    The keywords come behind the text and not before it: in front, they make passages that share
    them so much alike that queries about what a passage itself says find it clearly less often.
    """
    keywords = _keywords(note, encoder)
    room = encoder.max_tokens - MARKS - len(encoder.tokenize(keywords))
    spans = passages.split(
        note.content, min(PASSAGE_TOKENS, room), OVERLAP_TOKENS, encoder.tokenize
    )
    parts = ((span.heading, note.content[span.start : span.end], keywords) for span in spans)
    return spans, ["\n".join(filter(None, part)) for part in parts]


def _keywords(note: Note, encoder: Encoder) -> str:
    """The note's keywords, cut where they would take too much of the model's room."""
    limit = int(encoder.max_tokens * KEYWORDS_SHARE)
    tokens = encoder.tokenize(note.keywords)
    return note.keywords[: tokens[limit].start] if len(tokens) > limit else note.keywords


def _vectors_by_hash(notes: list[Note], model: EmbeddingModel) -> dict[str, Any]:
    rows = Passage.objects.filter(note__in=notes, model=model).values_list("text_hash", "vector")
    return {text_hash: np.array(vector, np.float32) for text_hash, vector in rows}


def _stacked(hashes: list[str], vectors: dict[str, Any], like: Vectors) -> Vectors:
    return np.array([vectors[key] for key in hashes], np.float32).reshape(-1, like.shape[1])


# --- Vectors -> rows ------------------------------------------------------------------------


def save_embedded(embedded: list[EmbeddedNote], model: EmbeddingModel) -> int:
    """Replace the passages of these notes, in the caller's transaction; how many have any now.

    A note that was edited or deleted since it was read keeps what it has: vectors of an old text
    never replace those of a newer one. The lock holds edits off until the transaction ends.
    """
    models = {user: serving.wanted(user, model) for user in {r.note.user_id for r in embedded}}
    notes = [result.note for result in embedded if models[result.note.user_id]]
    unchanged = _lock_unchanged(notes)
    Passage.objects.filter(note__any_of=unchanged, model=model).delete()
    kept = [result for result in embedded if result.note.pk in unchanged and result.spans]
    _copy(kept, model)
    for user_id, targets in models.items():
        _no_more_due([note.pk for note in notes if note.user_id == user_id], unchanged, targets)
    return len(kept)


def _no_more_due(notes: list[int], unchanged: set[int], models: list[int]) -> None:
    """Those that have vectors of all the models that they need, or nothing to embed."""
    due = EmbeddingDue.objects.filter(note__any_of=unchanged & set(notes))
    for model in models:
        has = Passage.objects.filter(note=OuterRef("pk"), model=model, current=True)
        due = due.filter(
            Exists(has) | Exists(Note.objects.filter(pk=OuterRef("pk"), has_text=False))
        )
    due.delete()


def _lock_unchanged(notes: list[Note]) -> set[int]:
    ids = [note.pk for note in notes]
    locked = Note.objects.select_for_update(no_key=True).filter(pk__any_of=ids).order_by("pk")
    present = dict(locked.values_list("pk", "text_hash"))
    return {note.pk for note in notes if present.get(note.pk) == note.text_hash}


COLUMNS = {
    "note_id": "int8",
    "user_id": "int8",
    "model_id": "int4",
    "current": "bool",
    "ordinal": "int4",
    "char_start": "int4",
    "char_end": "int4",
    "text_hash": "text",
    # Its bytes are made here: PostgreSQL reads them as what the column is.
    "vector": "bytea",
}


def _copy(embedded: list[EmbeddedNote], model: EmbeddingModel) -> None:
    statement = f"COPY passages ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(list(COLUMNS.values()))
        for result in embedded:
            vectors = _halfvecs(result.vectors)
            note = result.note
            for n, span in enumerate(result.spans):
                place = (n, span.start, span.end)
                copy.write_row(
                    (note.pk, note.user_id, model.pk, True, *place, result.hashes[n], vectors[n])
                )


def _halfvecs(vectors: Vectors) -> list[bytes]:
    """pgvector's binary form (halfvec_recv): the dimension, two unused bytes, and the numbers, all
    with the high byte first."""
    head = vectors.shape[1].to_bytes(2, "big") + b"\0\0"
    return [head + row.tobytes() for row in vectors.astype(">f2")]
