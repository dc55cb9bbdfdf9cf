"""Notes -> passages -> vectors. Nothing is written here; notes.embeddings.store does that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from jobs.job_types import Renew
from notes.embeddings.chunking import Span, split
from notes.embeddings.encoder import Encoder
from notes.embeddings.engines import Vectors
from notes.embeddings.rollout import encoder_of
from notes.models import FIRST_PART_ORDINAL, EmbeddingModel, Note, Passage

# Smaller passages are found more reliably; larger ones say more. Both were measured: docs/search.md.
PASSAGE_TOKENS = 128
OVERLAP_TOKENS = 16
# The tokens for start and end that a model adds.
SPECIAL_TOKENS = 2
# The largest share of the model's tokens that a note's keywords may take in each passage.
KEYWORDS_MAX_SHARE = 0.25
# Half a second of work on a slow processor.
PASSAGES_PER_GROUP = 32
# Some seconds of work: a batch of 100,000 bytes has fewer.
MAX_PASSAGES = 320


class EmbeddedNote(NamedTuple):
    note: Note
    spans: list[Span]
    text_hashes: list[str]
    """Hashes of the texts that were embedded, one for each span."""
    vectors: Vectors
    """float32 [len(spans), dimension]"""


class PartlyEmbedded(Exception):
    """There were more passages than embed_notes computes in one call."""

    def __init__(self, parts: list[EmbeddedNote]) -> None:
        super().__init__(parts)
        self.parts = parts
        """The passages that were computed."""


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
    Without it, they keep only those that store.keep_part has written. Calls `pause` between groups of
    PASSAGES_PER_GROUP passages, when the model is free. Raises ModelUnavailable, and PartlyEmbedded
    after MAX_PASSAGES.
    """
    encoder = encoder_of(model)
    chunked = [_chunk(note, encoder, renew) for note in notes]
    texts = {key: text for chunks in chunked for key, text in chunks.texts_by_hash()}
    stored = _stored_vectors(notes, model, only_parts=not reuse)
    missing = {key: text for key, text in texts.items() if key not in stored}
    now = dict(islice(missing.items(), MAX_PASSAGES))
    vectors = _embed(now, encoder, renew, pause)
    if len(now) < len(missing):
        raise PartlyEmbedded([chunks.with_vectors(vectors) for chunks in chunked])
    return [chunks.with_vectors(stored | vectors) for chunks in chunked]


def _embed(
    texts: dict[str, str], encoder: Encoder, renew: Renew, pause: Callable[[], object]
) -> dict[str, Any]:
    """The vectors of these texts by their keys."""
    vectors: dict[str, Any] = {}
    # By length: texts of a similar length need little padding.
    keys = sorted(texts, key=lambda key: len(texts[key]))
    for start in range(0, len(keys), PASSAGES_PER_GROUP):
        group = keys[start : start + PASSAGES_PER_GROUP]
        pause()
        vectors |= zip(group, encoder.embed([texts[key] for key in group], renew), strict=True)
    return vectors


class _ChunkedNote(NamedTuple):
    note: Note
    spans: list[Span]
    texts: list[str]
    """What is embedded of each span."""
    text_hashes: list[str]
    """SHA-256 of the texts, in hex."""
    dimension: int

    def texts_by_hash(self) -> Iterator[tuple[str, str]]:
        return zip(self.text_hashes, self.texts, strict=True)

    def with_vectors(self, vectors: dict[str, Any]) -> EmbeddedNote:
        """The passages that have a vector."""
        rows = zip(self.spans, self.text_hashes, strict=True)
        known = [(span, key, vectors[key]) for span, key in rows if key in vectors]
        spans, keys, own = map(list, zip(*known, strict=True)) if known else ([], [], [])
        stacked = np.array(own, np.float32).reshape(-1, self.dimension)
        return EmbeddedNote(self.note, spans, keys, stacked)


def _chunk(note: Note, encoder: Encoder, renew: Renew) -> _ChunkedNote:
    renew()
    spans, texts = passages_of(note, encoder)
    text_hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    return _ChunkedNote(note, spans, texts, text_hashes, encoder.dimension)


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


def _stored_vectors(
    notes: list[Note], model: EmbeddingModel, *, only_parts: bool
) -> dict[str, Any]:
    """The vectors in the database by the hash of their text."""
    passages = Passage.objects.filter(note__in=notes, model=model)
    if only_parts:
        passages = passages.filter(ordinal__gte=FIRST_PART_ORDINAL)
    rows = passages.values_list("text_hash", "vector")
    return {text_hash: np.array(vector, np.float32) for text_hash, vector in rows}
