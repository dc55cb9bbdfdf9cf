"""The Celery tasks of this app. Each is a single call."""

from __future__ import annotations

from celery import shared_task

from notes.embeddings import pending, saved_notes


@shared_task(acks_late=False)
def embed_saved_notes() -> None:
    """Acknowledged early: otherwise a note that kills the process would be delivered again and again.

    embed_pending_notes finds notes that lost their process and enqueues a job, which isolates such a
    note.
    """
    saved_notes.embed_waiting_notes()


@shared_task(acks_late=False)
def embed_pending_notes() -> None:
    pending.embed_pending_notes()
