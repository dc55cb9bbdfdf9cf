from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models import Exists, OuterRef, Q
from pgvector.django import HalfVectorField

from scribes.deletion import TreeQuerySet, lock_tree
from scribes.models import User

if TYPE_CHECKING:
    from notes.scripture import VerseRange

CONTENT_MAX_CHARACTERS = 1_000_000


class NoteQuerySet(TreeQuerySet["Note"]):
    def for_user(self, user: User) -> NoteQuerySet:
        return self.filter(user=user)

    def with_text(self) -> NoteQuerySet:
        """Not blank: only these have anything to embed."""
        return self.filter(has_text=True)

    def embedded(self, model: EmbeddingModel) -> NoteQuerySet:
        """Notes whose present text has vectors of this model."""
        return self.filter(Exists(_passages(model, current=True)))

    def outdated(self, model: EmbeddingModel) -> NoteQuerySet:
        """Notes that have vectors of this model, but of an older text."""
        return self.filter(Exists(_passages(model, current=False)))

    def stale(self, model: EmbeddingModel) -> NoteQuerySet:
        """Notes with a text that has no vectors of this model, or only those of an older text."""
        return self.with_text().filter(~Exists(_passages(model, current=True)))

    def failed(self) -> NoteQuerySet:
        """Notes whose present text could not be embedded when a job last tried."""
        return self.filter(due__error_class__gt="")

    def matching(
        self,
        tags: Sequence[str] = (),
        preacher: str = "",
        scripture: Sequence[VerseRange] = (),
        date_from: date | None = None,
        date_to: date | None = None,
    ) -> NoteQuerySet:
        """Notes with all of these tags, by this preacher, about one of these verses, written
        on these days (UTC)."""
        wanted = Q(tags__contains=list(tags)) if tags else Q()
        if preacher:
            wanted &= Q(preacher__icontains=preacher)
        if scripture:
            wanted &= Q(Exists(ScriptureReference.objects.of_note().touching(scripture)))
        if date_from:
            wanted &= Q(created_at__date__gte=date_from)
        if date_to:
            wanted &= Q(created_at__date__lte=date_to)
        return self.filter(wanted)


def _passages(model: EmbeddingModel, *, current: bool) -> models.QuerySet[Passage]:
    """Of the note in the outer query."""
    return Passage.objects.filter(note=OuterRef("pk"), model=model, current=current)


class Note(models.Model):
    """What somebody wrote down: markdown, with what a sermon note needs beside it.

    The table has one column more, which only notes.search knows: `words`, a tsvector that
    PostgreSQL generates from the texts, so that a note is found by its words as soon as it is
    saved (migration 0002).
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notes")
    title = models.CharField(max_length=300)
    content = models.TextField(blank=True, default="", help_text="Markdown.")
    preacher = models.CharField(max_length=200, blank=True, default="")
    tags = ArrayField(models.CharField(max_length=100), blank=True, default=list)
    scripture_refs = models.TextField(
        max_length=2000, blank=True, default="", help_text="As typed: “Jn 3:14-21; Rom 8.28”."
    )
    text_hash = models.CharField(max_length=64, editable=False)
    # Kept, as PostgreSQL and Python do not agree on what is white space, and to count without
    # reading all texts.
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
        """In the same transaction, what was derived from an older text is marked as such, and the
        new text's embedding becomes due. Bulk writes do not come past here."""
        self.text_hash = text_hash(self)
        self.has_text = bool(self.content.strip())
        if not self._state.adding:
            # A note that was deleted meanwhile must not come back: this raises DatabaseError.
            kwargs.setdefault("force_update", True)
        with transaction.atomic():
            before = Note.objects.select_for_update(no_key=True).filter(pk=self.pk)
            same = before.filter(text_hash=self.text_hash).exists()
            super().save(*args, **kwargs)
            if not same:
                from notes.indexing import text_changed

                text_changed(self)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            lock_tree(Note.objects.filter(pk=self.pk))
            return super().delete(*args, **kwargs)

    @property
    def keywords(self) -> str:
        """One line that every passage of the note is embedded with, so that each of them is also
        found by what is said of the whole note: its scripture references and its tags."""
        return " ".join(filter(None, [self.scripture_refs, *self.tags]))


def text_hash(note: Note) -> str:
    """SHA-256 of all that is embedded of a note, in hex: another text, another hash. So it is when
    words move between the references and the tags: only the former are scripture."""
    parts = (note.scripture_refs, " ".join(note.tags), note.content)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class EmbeddingModel(models.Model):
    """A model that vectors were made with. Vectors of different models cannot be compared."""

    # Four bytes: with eight, a page of the index that searches read would hold eight passages of 384
    # dimensions in place of nine.
    id = models.AutoField(primary_key=True)
    version = models.CharField(
        max_length=150, unique=True, help_text="Its name, and the fingerprint of its weights."
    )
    path = models.TextField(blank=True, help_text="Its folder; empty: the one in the package.")

    class Meta:
        db_table = "embedding_models"

    def __str__(self) -> str:
        return self.version


class ServedModel(models.Model):
    """Whose vectors a user's searches use: see notes.serving."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="served_model"
    )
    model = models.ForeignKey(EmbeddingModel, models.PROTECT, related_name="+")
    next = models.ForeignKey(
        EmbeddingModel,
        models.PROTECT,
        null=True,
        related_name="+",
        help_text="Its vectors are being made; searches go over to it once it has all of them.",
    )
    previous = models.ForeignKey(EmbeddingModel, models.PROTECT, null=True, related_name="+")

    class Meta:
        db_table = "served_models"

    def __str__(self) -> str:
        return f"{self.model} for {self.user_id}"


class Passage(models.Model):
    """A part of a note that fits the model, and its vector.

    Rows are written by notes.indexing only, all of a note's for a model at once.
    """

    note = models.ForeignKey(Note, models.CASCADE, related_name="passages", db_index=False)
    # Copied from the note, so that a search reads one user's rows and no others. Not looked up a
    # second time for each row that is written: the note's own constraint says that the user exists.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, db_index=False, db_constraint=False
    )
    model = models.ForeignKey(EmbeddingModel, models.CASCADE, db_index=False)
    current = models.BooleanField(help_text="Whether it was made from the text the note has now.")
    ordinal = models.PositiveIntegerField()
    char_start = models.PositiveIntegerField()
    char_end = models.PositiveIntegerField()
    text_hash = models.CharField(max_length=64, help_text="Of the text that was embedded.")
    # No dimension: models of different sizes live side by side. Half precision changes a cosine
    # by about 1e-4 and halves the table.
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
            # A search reads all of a user's vectors, from this index alone: it has them side by
            # side, where the table has them between everybody else's.
            models.Index(
                fields=["user", "model", "current"],
                include=["note", "vector"],
                name="passages_of_user",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.char_start}-{self.char_end} of note {self.note_id}"


class EmbeddingDue(models.Model):
    """A note whose present text is to be embedded. The message that says so may be lost.

    Another text makes it as new; once the note has all its vectors, it is deleted.
    """

    note = models.OneToOneField(Note, models.CASCADE, primary_key=True, related_name="due")
    since = models.DateTimeField()
    handed_over_at = models.DateTimeField(
        null=True, help_text="When a job was made of it, since nothing came of the message."
    )
    error_class = models.CharField(
        max_length=200, default="", help_text="Of what made the latest job fail with it."
    )
    error = models.TextField(default="", help_text="Its message.")

    class Meta:
        db_table = "embeddings_due"
        indexes = [models.Index(fields=["since"], name="embeddings_due_longest")]

    def __str__(self) -> str:
        return f"note {self.note_id}"


class ScriptureReferenceQuerySet(models.QuerySet["ScriptureReference"]):
    def of_note(self) -> ScriptureReferenceQuerySet:
        """Of the note in the outer query."""
        return self.filter(note=OuterRef("pk"), user=OuterRef("user"))

    def touching(self, verses: Sequence[VerseRange]) -> ScriptureReferenceQuerySet:
        """References that share a verse with any of these ranges."""
        wanted = Q(pk__in=[])
        for verse in verses:
            # A reference stays in its book, so none that starts before the book needs a look.
            near = Q(start_verse__range=(verse.book_start, verse.end))
            wanted |= near & Q(end_verse__gte=verse.start)
        return self.filter(wanted)


class ScriptureReference(models.Model):
    """Verses that a note refers to, in its field or its text. A range never leaves its book.

    A verse is a number, as in pythonbible: John 3:16 is 43_003_016.
    """

    note = models.ForeignKey(Note, models.CASCADE, related_name="references")
    # Copied from the note, for the index.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, db_index=False)
    start_verse = models.PositiveIntegerField()
    end_verse = models.PositiveIntegerField()

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
