"""Shortcuts around saved notes."""

from __future__ import annotations

from notes.embeddings.saved_notes import embed_and_save


def embed_note(note_id: int) -> None:
    """Embed this note if it is pending, whosever turn it is."""
    embed_and_save([note_id])
