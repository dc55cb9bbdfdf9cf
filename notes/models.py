"""The rows of notes, their embeddings and their scripture references.

That a note's text is saved together with what is derived from it makes this module longer than others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from itertools import groupby
from operator import attrgetter
from typing import Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.lookups import In
from pgvector.django import HalfVectorField

from notes.pending_embeddings import PendingEmbedding
from notes.scripture.references import Mention, ParsedText, parse_note
from notes.scripture.verse_range import VerseRange
from scribes.db.deletion import LockingDeleteQuerySet, lock_with_children
from scribes.db.lookups import IsTrue
from scribes.models import User

CONTENT_MAX_CHARACTERS = 1_000_000
# Passages with an ordinal from here on are parts of a note whose embedding is not complete. No search
# sees them.
FIRST_PART_ORDINAL = 1_000_000


class NoteQuerySet(LockingDeleteQuerySet["Note"]):
    def for_user(self, user: User) -> NoteQuerySet:
        return self.filter(user=user)

    def with_text(self) -> NoteQuerySet:
        """Notes that are not blank. Only these are embedded."""
        return self.filter(has_text=True)

    def stale(self, model: EmbeddingModel) -> NoteQuerySet:
        """Notes with text whose current text has no vectors of this model."""
        current = Passage.objects.filter(note=OuterRef("pk"), model=model, current=True)
        return self.with_text().filter(~Exists(current))

    def failed(self) -> NoteQuerySet:
        """Notes whose current text could not be embedded in the latest attempt."""
        return self.filter(pending_embedding__error_class__gt="")

    def matching(
        self,
        user: User,
        tags: Sequence[str] = (),
        preacher: str = "",
        scripture: Sequence[VerseRange] = (),
        date_from: date | None = None,
        date_to: date | None = None,
    ) -> NoteQuerySet:
        """Notes of the user with all of the tags, by the preacher, that refer to any of the verses, and
        were created on these days (UTC)."""
        condition = Q(user=user)
        if tags:
            condition &= Q(tags__contains=list(tags))
        if preacher:
            condition &= Q(preacher__icontains=preacher)
        if scripture:
            references = ScriptureReference.objects.filter(user=user).touching(scripture)
            condition &= Q(IsTrue(In(F("pk"), references.values("note"))))
        if date_from:
            condition &= Q(created_at__date__gte=date_from)
        if date_to:
            condition &= Q(created_at__date__lte=date_to)
        return self.filter(condition)


class Note(models.Model):
    """A note in markdown, with the fields of a sermon note.

    The table has one more column, which only notes.search uses: `words`, a tsvector that PostgreSQL
    generates from the texts (see the first migration). So keyword search finds a note as soon as it
    is saved.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notes")
    title = models.CharField(max_length=300)
    content = models.TextField(blank=True, default="", help_text="Markdown.")
    preacher = models.CharField(max_length=200, blank=True, default="")
    tags = ArrayField(models.CharField(max_length=100), blank=True, default=list)
    scripture_refs = models.TextField(
        max_length=2000, blank=True, default="", help_text="As typed: “Jn 3:14-21; Rom 8.28”."
    )
    unparsed_references = ArrayField(
        models.TextField(),
        default=list,
        db_default=[],
        editable=False,
        help_text="The parts of scripture_refs that are not references.",
    )
    text_hash = models.CharField(max_length=64, editable=False)
    # A column, because PostgreSQL and Python disagree on what white space is, and so that notes with
    # text can be counted without reading them.
    has_text = models.BooleanField(db_default=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = NoteQuerySet.as_manager()

    class Meta:
        db_table = "notes"
        ordering = ("-updated_at", "-id")
        indexes = [
            models.Index(fields=["user", "-updated_at", "-id"], name="notes_newest_of_user"),
        ]

    def __str__(self) -> str:
        return self.title

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the note and, if its text changed, what is derived from it, in one transaction.

        Bulk writes do not call this.
        """
        before, self.text_hash = self.text_hash, text_hash(self)
        self.has_text = bool(self.content.strip())
        # Before the transaction, because it may take half a second.
        references = self._parse() if self.text_hash != before else None
        if not self._state.adding:
            # Raises DatabaseError if the note was deleted meanwhile, instead of restoring it.
            kwargs.setdefault("force_update", True)
        with transaction.atomic():
            stored = Note.objects.select_for_update(no_key=True).filter(pk=self.pk)
            is_same_text = stored.filter(text_hash=self.text_hash).exists()
            super().save(*args, **kwargs)
            if not is_same_text:
                on_text_changed(self, self._parse() if references is None else references)

    def _parse(self) -> ParsedText:
        """The references to scripture; sets `unparsed_references`."""
        parsed = parse_note(self.scripture_refs, self.content)
        self.unparsed_references = parsed.unparsed
        return parsed

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            lock_with_children(Note.objects.filter(pk=self.pk))
            return super().delete(*args, **kwargs)

    @property
    def mentions(self) -> list[tuple[str, Mention]]:
        """The references to scripture with the field that each is in, in the order of the text.

        Notes that were saved by a version that did not record positions have none.
        """
        rows = self.references.exclude(source="").order_by("pk")
        key = attrgetter("source", "char_start", "char_end")
        return [
            (source, Mention(tuple(row.verses for row in same), start, end))
            for (source, start, end), same in groupby(rows, key)
        ]

    @property
    def keywords(self) -> str:
        """The scripture references and tags in one line.

        Every passage of the note is embedded together with this line, so that searches for what
        describes the whole note find each of its passages.
        """
        return " ".join(filter(None, [self.scripture_refs, *self.tags]))


def text_hash(note: Note) -> str:
    """SHA-256, in hex, of everything that is embedded of a note.

    It also changes when words move between references and tags: only the former are scripture.
    """
    parts = (note.scripture_refs, " ".join(note.tags), note.content)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def on_text_changed(note: Note, parsed: ParsedText) -> None:
    """Update what is derived from a note's text. Runs in the transaction that saves the text."""
    note.passages.filter(current=True).update(current=False)
    note.references.all().delete()
    ScriptureReference.objects.bulk_create(
        ScriptureReference(
            note=note,
            user_id=note.user_id,
            start_verse=verses.start,
            end_verse=verses.end,
            source=source,
            char_start=mention.start,
            char_end=mention.end,
        )
        for source, mentions in parsed.mentions.items()
        for mention in mentions
        for verses in mention.ranges
    )
    PendingEmbedding.objects.add_saved(note.pk, note.user_id, len(note.content.encode()))


class EmbeddingModel(models.Model):
    """A model that vectors were made with. Vectors of different models cannot be compared."""

    # Four bytes: with eight, a page of the index that searches read holds eight passages of 384
    # dimensions instead of nine.
    id = models.AutoField(primary_key=True)
    version = models.CharField(
        max_length=150, unique=True, help_text="Name and fingerprint of the weights."
    )
    path = models.TextField(
        blank=True, help_text="Folder of the model; empty for the packaged one."
    )

    class Meta:
        db_table = "embedding_models"

    def __str__(self) -> str:
        return self.version


class UserEmbeddingModel(models.Model):
    """The models of one user: see notes.embeddings.rollout."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        primary_key=True,
        related_name="user_embedding_model",
    )
    active_model = models.ForeignKey(
        EmbeddingModel, models.PROTECT, related_name="+", help_text="Searches use its vectors."
    )
    next_model = models.ForeignKey(
        EmbeddingModel,
        models.PROTECT,
        null=True,
        related_name="+",
        help_text="Becomes the active model once all notes have its vectors.",
    )
    previous_model = models.ForeignKey(
        EmbeddingModel,
        models.PROTECT,
        null=True,
        related_name="+",
        help_text="Was the active model before. Its vectors are kept for a rollback.",
    )

    class Meta:
        db_table = "user_embedding_models"

    def __str__(self) -> str:
        return f"{self.active_model} for {self.user_id}"


class Passage(models.Model):
    """A part of a note that fits the model, and its vector.

    Only notes.embeddings.store writes these rows, all passages of a note and a model at once. The
    columns of fixed size come first, which saves padding.
    """

    note = models.ForeignKey(Note, models.CASCADE, related_name="passages", db_index=False)
    # Copied from the note, so that a search reads the rows of one user only. No constraint, which
    # would look up the user for each row: the note's own constraint says that the user exists.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, db_index=False, db_constraint=False
    )
    model = models.ForeignKey(EmbeddingModel, models.CASCADE, db_index=False)
    ordinal = models.PositiveIntegerField()
    char_start = models.PositiveIntegerField()
    char_end = models.PositiveIntegerField()
    current = models.BooleanField(help_text="Whether it was made from the note's current text.")
    text_hash = models.CharField(max_length=64, help_text="Hash of the text that was embedded.")
    heading = models.TextField(
        default="",
        db_default="",
        help_text="The heading of the section that it starts in: see chunking.headings_at.",
    )
    # Without a dimension, so that vectors of different models fit into one table. Half precision
    # changes a cosine by about 1e-4 and halves the table.
    vector = HalfVectorField()

    class Meta:
        db_table = "passages"
        ordering = ("note", "ordinal")
        constraints = [
            models.UniqueConstraint(
                fields=["note", "model", "ordinal"], name="one_passage_per_ordinal"
            ),
            models.CheckConstraint(
                condition=Q(char_end__gt=models.F("char_start")), name="passage_has_text"
            ),
        ]
        indexes = [
            # A search reads all vectors of one user from this index alone. They are next to each
            # other here, while in the table they are scattered among those of other users.
            models.Index(
                fields=["user", "model", "current"],
                include=["note", "vector"],
                name="passages_of_user",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.char_start}-{self.char_end} of note {self.note_id}"


class ScriptureReferenceQuerySet(models.QuerySet["ScriptureReference"]):
    def touching(self, verses: Sequence[VerseRange]) -> ScriptureReferenceQuerySet:
        """References that share a verse with any of these ranges."""
        condition = Q(pk__in=[])
        for verse in verses:
            # A reference never leaves its book, so those that start in an earlier book cannot match.
            starts_in_time = Q(start_verse__range=(verse.book_start, verse.end))
            condition |= starts_in_time & Q(end_verse__gte=verse.start)
        return self.filter(condition)


class ScriptureReference(models.Model):
    """A range of verses that a note refers to, in its field for references or in its text.

    Verses are numbers as in notes.scripture.verse_range. A range never leaves its book.
    """

    note = models.ForeignKey(Note, models.CASCADE, related_name="references")
    # Copied from the note, for the index.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, db_index=False)
    start_verse = models.PositiveIntegerField()
    end_verse = models.PositiveIntegerField()
    source = models.CharField(
        db_default="",
        default="",
        max_length=20,
        help_text="The field of the note that it is in: scripture_refs or content; empty if "
        "a version that recorded no positions saved it.",
    )
    char_start = models.PositiveIntegerField(
        null=True, help_text="Where it begins in that field, in characters."
    )
    char_end = models.PositiveIntegerField(
        null=True, help_text="The position after its last character."
    )

    objects = ScriptureReferenceQuerySet.as_manager()

    class Meta:
        db_table = "scripture_references"
        constraints = [
            models.CheckConstraint(
                condition=Q(end_verse__gte=models.F("start_verse")), name="reference_has_verses"
            ),
        ]
        indexes = [
            models.Index(
                fields=["user", "start_verse", "end_verse"],
                include=["note"],
                name="references_of_user",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.start_verse}-{self.end_verse} in note {self.note_id}"

    @property
    def verses(self) -> VerseRange:
        return VerseRange(self.start_verse, self.end_verse)
