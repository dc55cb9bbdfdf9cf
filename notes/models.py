from __future__ import annotations

import hashlib
from typing import Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Exists, F, OuterRef
from pgvector.django import HalfVectorField

from scribes.models import User

CONTENT_MAX_CHARACTERS = 1_000_000


class NoteQuerySet(models.QuerySet["Note"]):
    def for_user(self, user: User) -> NoteQuerySet:
        return self.filter(user=user)

    def embedded(self, model: str) -> NoteQuerySet:
        """Notes whose present text has vectors of this model."""
        return self.filter(Exists(_current_passages(model)))

    def stale(self, model: str) -> NoteQuerySet:
        """Notes with a text that has no vectors of this model, or only those of an older text."""
        return self.filter(~Exists(_current_passages(model)), content__regex=r"\S")


def _current_passages(model: str) -> PassageQuerySet:
    """Of the note in the outer query."""
    return Passage.objects.filter(note=OuterRef("pk"), text_hash=OuterRef("text_hash"), model=model)


class Note(models.Model):
    """What somebody wrote down: markdown, with what a sermon note needs beside it."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notes")
    title = models.CharField(max_length=300)
    content = models.TextField(blank=True, default="", help_text="Markdown.")
    preacher = models.CharField(max_length=200, blank=True, default="")
    tags = ArrayField(models.CharField(max_length=100), blank=True, default=list)
    scripture_refs = models.TextField(
        max_length=2000, blank=True, default="", help_text="As typed: “Jn 3:14-21; Rom 8.28”."
    )
    text_hash = models.CharField(max_length=64, editable=False)
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
        """Keeps text_hash in step. Bulk writes do not come past here."""
        self.text_hash = text_hash(self)
        super().save(*args, **kwargs)

    @property
    def keywords(self) -> str:
        """One line that every passage of the note is embedded with, so that each of them is also
        found by what is said of the whole note: its scripture references and its tags."""
        return " ".join(filter(None, [self.scripture_refs, *self.tags]))


def text_hash(note: Note) -> str:
    """SHA-256 of all that is embedded of a note, in hex: another text, another hash."""
    return hashlib.sha256(f"{note.keywords}\0{note.content}".encode()).hexdigest()


class PassageQuerySet(models.QuerySet["Passage"]):
    def for_user(self, user: User) -> PassageQuerySet:
        return self.filter(user=user)

    def current(self, model: str) -> PassageQuerySet:
        """Vectors of this model, made from the text that the note has now."""
        return self.filter(model=model, text_hash=F("note__text_hash"))


class Passage(models.Model):
    """A part of a note that fits the model, and its vector.

    Rows are written by notes.indexing only, all of a note's at once.
    """

    note = models.ForeignKey(Note, models.CASCADE, related_name="passages")
    # Copied from the note, so that a search reads one user's rows and no others.
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="passages")
    ordinal = models.PositiveIntegerField()
    char_start = models.PositiveIntegerField()
    char_end = models.PositiveIntegerField()
    text_hash = models.CharField(max_length=64, help_text="Of the note's text it was made from.")
    model = models.CharField(max_length=100)
    # No dimension: models of different sizes live side by side. Half precision changes a cosine
    # by about 1e-7 and halves the table.
    vector = HalfVectorField()

    objects = PassageQuerySet.as_manager()

    class Meta:
        db_table = "passages"
        ordering = ("note", "ordinal")
        constraints = [
            models.UniqueConstraint(
                fields=["note", "model", "ordinal"], name="one_passage_per_ordinal"
            ),
            models.CheckConstraint(
                condition=models.Q(char_end__gt=F("char_start")), name="passage_has_text"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.char_start}-{self.char_end} of note {self.note_id}"
