"""The rows of notes whose embedding is pending. notes.models belongs to it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import models, transaction
from django.db.models import Max, Q
from django.db.models.functions import Now

from scribes.db.turns import first_turn, is_newcomer
from scribes.messaging.publishing import publish

# Longer notes are embedded by jobs, since they keep a process busy for longer than others should wait.
SHORT_NOTE_BYTES = 10_000
# What a note costs in its user's turn beside its text, in bytes.
TURN_BYTES = 500


class PendingEmbeddingQuerySet(models.QuerySet["PendingEmbedding"]):
    def in_turn(self) -> PendingEmbeddingQuerySet:
        """Notes that wait for their turn, the next one first: see notes.embeddings.saved_notes."""
        return self.filter(IN_TURN).order_by("turn", "pk")

    def in_service(self) -> PendingEmbeddingQuerySet:
        """Notes that a process has claimed and may be embedding now."""
        return self.filter(claimed_at__gte=_claims_expire_before())

    def not_in_turn(self) -> PendingEmbeddingQuerySet:
        """Notes that have no turn, and notes whose process died or failed."""
        return self.filter(Q(turn=None) | Q(claimed_at__lt=_claims_expire_before()))

    def add_saved(self, note_id: int, user_id: int, size: int) -> None:
        """Record that a note was saved and must be embedded, and publish a message on commit. `size`
        is that of its content in bytes."""
        turn = self._next_turn(user_id, size) if size <= SHORT_NOTE_BYTES else None
        row = PendingEmbedding(note_id=note_id, user_id=user_id, since=Now(), size=size, turn=turn)
        self._upsert([row])
        transaction.on_commit(partial(row.publish), robust=True)

    def _next_turn(self, user_id: int, size: int) -> int:
        """Users take turns by the amount of text: a note costs its size, and a little more."""
        in_turn = PendingEmbedding.objects.in_turn()
        own = in_turn.filter(user=user_id)
        cost = size + TURN_BYTES
        return first_turn(PendingEmbedding.objects.in_service(), in_turn, own, cost)

    def add_all(self, notes: models.QuerySet[Any]) -> None:
        """Record that these notes must be embedded. A periodic task enqueues a job."""
        ids = notes.values_list("pk", "user")
        self._upsert(PendingEmbedding(note_id=pk, user_id=user, since=Now()) for pk, user in ids)

    def _upsert(self, rows: Iterable[PendingEmbedding]) -> None:
        self.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["note"],
            update_fields=[
                *("user", "since", "size", "turn"),
                *("claimed_at", "enqueued_at", "error_class", "error"),
            ],
        )


def _claims_expire_before() -> Any:
    return Now() - timedelta(seconds=settings.JOB_LEASE_SECONDS)


# A claimed note keeps its turn, which says whose turn it is now.
IN_TURN = Q(turn__isnull=False, claimed_at=None)


class PendingEmbedding(models.Model):
    """A note whose current text must be embedded. The row stays even if the message is lost.

        in turn --a process claims it--> claimed --embedded--> deleted
           no turn, because the note is long ----'--the process died or failed--> a job embeds it

    It is reset when the text changes again, and deleted once the note has all its vectors.
    """

    note = models.OneToOneField(
        "notes.Note", models.CASCADE, primary_key=True, related_name="pending_embedding"
    )
    # Copied from the note, for the index.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, db_index=False, db_constraint=False
    )
    since = models.DateTimeField()
    size = models.IntegerField(default=0, db_default=0, help_text="Bytes of the note's content.")
    turn = models.BigIntegerField(
        null=True, help_text="The lowest turn comes first; null if a job must embed the note."
    )
    claimed_at = models.DateTimeField(
        null=True, help_text="When a process began to embed it in its turn."
    )
    enqueued_at = models.DateTimeField(
        null=True, help_text="When a job was enqueued for it, if it needed one."
    )
    error_class = models.CharField(
        max_length=200, default="", help_text="Class of the error in the latest job."
    )
    error = models.TextField(default="", help_text="Message of the error in the latest job.")

    objects = PendingEmbeddingQuerySet.as_manager()

    class Meta:
        db_table = "pending_embeddings"
        indexes = [
            models.Index(fields=["since"], name="pending_embeddings_oldest"),
            models.Index(fields=["turn", "note"], condition=IN_TURN, name="pending_in_turn"),
            models.Index(fields=["user", "turn"], condition=IN_TURN, name="pending_of_user"),
            models.Index(
                fields=["claimed_at"],
                condition=Q(claimed_at__isnull=False),
                name="pending_claimed",
            ),
        ]

    def __str__(self) -> str:
        return f"note {self.note_id}"

    def is_newcomer(self) -> bool:
        """Whether the note's user had no other note waiting, as far as the turns in service tell."""
        current = PendingEmbedding.objects.in_service().aggregate(turn=Max("turn"))["turn"]
        return self.turn is not None and is_newcomer(self.turn, current, self.size + TURN_BYTES)

    def publish(self) -> None:
        """Tell the workers, unless a message is there already for another note of the user.

        Call it after the commit. If that other note is claimed at the same moment, its process sees
        this one: it looks for waiting notes after its claim.
        """
        if self.turn is None:
            label = f"Look for pending embeddings: note {self.pk}"
            publish("notes.tasks.embed_pending_notes", queue="control", label=label)
        elif not self._others_in_turn().exists():
            label = f"Embed saved notes: note {self.pk}"
            publish("notes.tasks.embed_saved_notes", queue="notes", label=label)

    def _others_in_turn(self) -> PendingEmbeddingQuerySet:
        return PendingEmbedding.objects.in_turn().filter(user=self.user_id).exclude(pk=self.pk)
