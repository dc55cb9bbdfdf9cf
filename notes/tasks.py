"""The Celery tasks of this app. Each is a single call."""

from __future__ import annotations

from celery import shared_task

from notes.embeddings import pending


@shared_task(acks_late=False)
def embed_note(note_id: int) -> None:
    """Acknowledged early: otherwise a note that kills the process would be delivered again and again.

    embed_pending_notes finds lost notes and enqueues a job, which isolates such a note.
    """
    pending.embed_pending_note(note_id)


@shared_task(acks_late=False)
def embed_pending_notes() -> None:
    pending.embed_pending_notes()
