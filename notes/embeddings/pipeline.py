"""Notes -> passages -> vectors. Nothing is written here; notes.embeddings.store does that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from jobs.job_types import Renew
from notes.embeddings.chunking import Span, split
from notes.embeddings.encoder import Encoder
from notes.embeddings.engines import Vectors
from notes.embeddings.rollout import encoder_of
from notes.models import EmbeddingModel, Note, Passage

# Smaller passages are found more reliably; larger ones say more. Both were measured: docs/search.md.
PASSAGE_TOKENS = 128
OVERLAP_TOKENS = 16
# The tokens for start and end that a model adds.
SPECIAL_TOKENS = 2
# The largest share of the model's tokens that a note's keywords may take in each passage.
KEYWORDS_MAX_SHARE = 0.25
# About a quarter of a second of work.
PASSAGES_PER_GROUP = 32


class EmbeddedNote(NamedTuple):
    note: Note
    spans: list[Span]
    text_hashes: list[str]
    """Hashes of the texts that were embedded, one for each span."""
    vectors: Vectors
    """float32 [len(spans), dimension]"""


Embedded = list[tuple[EmbeddingModel, list[EmbeddedNote]]]
"""Notes embedded with one or several models."""


def embed_notes(
    notes: list[Note],
    model: EmbeddingModel,
    renew: Renew = lambda: None,
    *,
    reuse: bool = False,
    pause: Callable[[], object] = lambda: None,
) -> list[EmbeddedNote]:
    """The passages of these notes with their vectors. A blank note has none.

    With `reuse`, passages whose text is unchanged keep the vectors that they have in the database.
    Calls `pause` between groups of PASSAGES_PER_GROUP passages, when the model is free.
    Raises ModelUnavailable.
    """
    encoder = encoder_of(model)
    chunked = [_chunk(note, encoder, renew) for note in notes]
    texts = {key: text for chunks in chunked for key, text in chunks.texts_by_hash()}
    vectors = _stored_vectors(notes, model) if reuse else {}
    # By length: texts of a similar length need little padding.
    missing = sorted((key for key in texts if key not in vectors), key=lambda key: len(texts[key]))
    for start in range(0, len(missing), PASSAGES_PER_GROUP):
        group = missing[start : start + PASSAGES_PER_GROUP]
        pause()
        vectors |= zip(group, encoder.embed([texts[key] for key in group], renew), strict=True)
    return [chunks.with_vectors(vectors, encoder.dimension) for chunks in chunked]


class _ChunkedNote(NamedTuple):
    note: Note
    spans: list[Span]
    texts: list[str]
    """What is embedded of each span."""
    text_hashes: list[str]
    """SHA-256 of the texts, in hex."""

    def texts_by_hash(self) -> Iterator[tuple[str, str]]:
        return zip(self.text_hashes, self.texts, strict=True)

    def with_vectors(self, vectors: dict[str, Any], dimension: int) -> EmbeddedNote:
        own = [vectors[key] for key in self.text_hashes]
        stacked = np.array(own, np.float32).reshape(-1, dimension)
        return EmbeddedNote(self.note, self.spans, self.text_hashes, stacked)


def _chunk(note: Note, encoder: Encoder, renew: Renew) -> _ChunkedNote:
    renew()
    spans, texts = passages_of(note, encoder)
    text_hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    return _ChunkedNote(note, spans, texts, text_hashes)


def passages_of(note: Note, encoder: Encoder) -> tuple[list[Span], list[str]]:
    """A note's passages, and the text that is embedded for each: heading, text, note's keywords.

    The keywords come last: as the first words, they make the vectors of passages that share them so
    similar that queries about the text of one passage find it noticeably less often.
    """
    keywords = _keywords(note, encoder)
    room = encoder.max_tokens - SPECIAL_TOKENS - len(encoder.tokenize(keywords))
    spans = split(note.content, min(PASSAGE_TOKENS, room), OVERLAP_TOKENS, encoder.tokenize)
    parts = ((span.heading, note.content[span.start : span.end], keywords) for span in spans)
    return spans, ["\n".join(filter(None, part)) for part in parts]


def _keywords(note: Note, encoder: Encoder) -> str:
    """The note's keywords, cut off where they exceed KEYWORDS_MAX_SHARE."""
    limit = int(encoder.max_tokens * KEYWORDS_MAX_SHARE)
    tokens = encoder.tokenize(note.keywords)
    return note.keywords[: tokens[limit].start] if len(tokens) > limit else note.keywords


def _stored_vectors(notes: list[Note], model: EmbeddingModel) -> dict[str, Any]:
    """The vectors in the database by the hash of their text."""
    rows = Passage.objects.filter(note__in=notes, model=model).values_list("text_hash", "vector")
    return {text_hash: np.array(vector, np.float32) for text_hash, vector in rows}
