"""Notes -> passages -> vectors -> rows, and the background job that does it for all notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from django.db.models import Count, FloatField, Q, Sum, Value
from django.db.models.functions import Ceil, Length

from jobs.estimate import items_per_second
from jobs.models import BackgroundJob
from jobs.runner import Renew
from notes import embedding, passages
from notes.engines import Vectors
from notes.models import Note, NoteQuerySet, Passage
from scribes.models import User

# Of the tokens that fit a passage, at most this part goes to the note's keywords.
KEYWORDS_SHARE = 0.25
# Of English text, where passages end with sentences. Only for estimates.
CHARACTERS_PER_PASSAGE = 800
# The model's marks for begin and end.
MARKS = 2


class EmbeddedNote(NamedTuple):
    note: Note
    model: str
    """Its embedding.model_version()."""
    spans: list[passages.Span]
    vectors: Vectors
    """float32 [len(spans), dimension]"""


class EmbeddingRegeneration:
    """Job type: embeds all notes of a user anew. An item is a note.

    Skipped: notes that are blank, that were deleted meanwhile, or whose text changed between
    reading and writing.
    """

    name = "embedding_regeneration"
    items = "notes"
    queue = "embeddings"
    # In characters: about what a hundred ordinary notes hold, and a minute's work.
    max_batch_weight = 500_000

    def plan(self, job: BackgroundJob) -> Iterable[tuple[int, int]]:
        notes = Note.objects.for_user(job.user)
        if job.parameters.get("only_stale"):
            notes = notes.stale(embedding.model_version())
        return _weighed(notes)

    def weigh(self, job: BackgroundJob, item_ids: Sequence[int]) -> Iterable[tuple[int, int]]:
        return _weighed(Note.objects.for_user(job.user).filter(pk__in=item_ids))

    def compute(
        self, job: BackgroundJob, item_ids: Sequence[int], renew: Renew
    ) -> list[EmbeddedNote]:
        return embed_notes(list(Note.objects.filter(pk__in=item_ids).order_by("pk")), renew)

    def save(self, job: BackgroundJob, results: list[EmbeddedNote]) -> int:
        return save_embedded(results)

    def summary(self, job: BackgroundJob) -> dict[str, Any]:
        return {
            "model": embedding.model_name(),
            "embedded_notes": job.processed_items,
            "skipped_notes": job.skipped_items,
            "failed_notes": job.failed_items,
        }


def estimate(user: User, *, only_stale: bool) -> dict[str, int | None]:
    """How many notes and about how many passages a job would embed, and in how many seconds."""
    notes = Note.objects.for_user(user).filter(content__regex=r"\S")
    if only_stale:
        notes = notes.stale(embedding.model_version())
    passages = Ceil(Length("content") / Value(CHARACTERS_PER_PASSAGE, FloatField()))
    total = notes.aggregate(notes=Count("pk"), passages=Sum(passages, default=0))
    speed = items_per_second(EmbeddingRegeneration.name)
    return {
        "notes": total["notes"],
        "passages": int(total["passages"]),
        "seconds": round(total["notes"] / speed) if speed else None,
    }


def _weighed(notes: NoteQuerySet) -> Iterable[tuple[int, int]]:
    return notes.order_by("pk").values_list("pk", Length("content"))


def embed_notes(notes: list[Note], renew: Renew = lambda: None) -> list[EmbeddedNote]:
    """The passages of these notes with their vectors. A blank note has none."""
    # Here and not when saving: the first time, it reads the whole model, and no transaction is open.
    model = embedding.model_version()
    spans = [_spans(note) for note in notes]
    texts = [
        passage_text(note, span) for note, own in zip(notes, spans, strict=True) for span in own
    ]
    vectors = embedding.embed(texts, renew)
    embedded, start = [], 0
    for note, own in zip(notes, spans, strict=True):
        embedded.append(EmbeddedNote(note, model, own, vectors[start : start + len(own)]))
        start += len(own)
    return embedded


def _spans(note: Note) -> list[passages.Span]:
    room = embedding.max_tokens() - MARKS - len(embedding.tokenize(_keywords(note)))
    return passages.split(note.content, room, embedding.tokenize)


def passage_text(note: Note, span: passages.Span) -> str:
    """What is embedded of a passage: its own text, and then the note's keywords.

    Behind the text and not before it: in front, they make passages that share them so much alike
    that queries about what a passage itself says find it clearly less often.
    """
    return f"{note.content[span.start : span.end]}\n{_keywords(note)}".rstrip("\n")


def _keywords(note: Note) -> str:
    """The note's keywords, cut where they would take too much of the passages' room."""
    limit = int(embedding.max_tokens() * KEYWORDS_SHARE)
    tokens = embedding.tokenize(note.keywords)
    return note.keywords[: tokens[limit].start] if len(tokens) > limit else note.keywords


def save_embedded(embedded: list[EmbeddedNote]) -> int:
    """Replace the passages of these notes, in the caller's transaction; how many notes that were.

    A note that was edited or deleted since it was read keeps what it has: vectors of an old text
    never replace those of a newer one. The lock holds edits off until the transaction ends.
    """
    wanted = Q()
    for result in embedded:
        if result.spans:
            wanted |= Q(pk=result.note.pk, text_hash=result.note.text_hash)
    if not wanted:
        return 0
    unchanged = set(
        Note.objects.select_for_update(no_key=True)
        .filter(wanted)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    Passage.objects.filter(note__in=unchanged, model=embedded[0].model).delete()
    rows = [row for result in embedded for row in _rows(result)]
    Passage.objects.bulk_create(row for row in rows if row.note_id in unchanged)
    return len(unchanged)


def _rows(result: EmbeddedNote) -> list[Passage]:
    return [
        Passage(
            note=result.note,
            user_id=result.note.user_id,
            ordinal=ordinal,
            char_start=span.start,
            char_end=span.end,
            text_hash=result.note.text_hash,
            model=result.model,
            vector=vector,
        )
        for ordinal, (span, vector) in enumerate(zip(result.spans, result.vectors, strict=True))
    ]
