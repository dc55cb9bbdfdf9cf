"""Each task is one call."""

from __future__ import annotations

from celery import shared_task

from notes import indexing


@shared_task(acks_late=False)
def embed_note(note_id: int) -> None:
    """Acknowledged at once: were a note to kill the process, its message would come again and
    again. hand_over_due_notes finds what was lost, and a job is careful with such notes."""
    indexing.embed_due_note(note_id)


@shared_task(acks_late=False)
def embed_due_notes() -> None:
    indexing.hand_over_due_notes()
    indexing.continue_going_over()
