"""Shortcuts around saved notes."""

from __future__ import annotations

from notes.embeddings.encoder import Encoder
from notes.embeddings.saved_notes import embed_and_save


def embed_note(note_id: int) -> None:
    """Embed this note if it is pending, whosever turn it is."""
    embed_and_save([note_id])


def record_embedded_texts(monkeypatch) -> list[str]:
    """The texts that are embedded from now on."""
    texts: list[str] = []
    embed = Encoder.embed

    def recording(self, new, *args):
        texts.extend(new)
        return embed(self, new, *args)

    monkeypatch.setattr(Encoder, "embed", recording)
    return texts
