"""A note's text -> passages that fit the embedding model. Pure: no database, no model.

Passages lie end to end: every character that is not white space is in exactly one of them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# The end of a sentence, with its closing quotes or brackets and the white space behind it, or a
# line's end. Nothing in it repeats without bound before a part that can fail, so it is linear.
SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]*_]{0,4}\s+|[。！？]|\n+""")

# Where each token stands in the text: (start, end) in characters, in order.
Offsets = Sequence[tuple[int, int]]
TokenOffsets = Callable[[str], Offsets]


class Span(NamedTuple):
    """text[start:end], in characters."""

    start: int
    end: int


def split(text: str, max_tokens: int, token_offsets: TokenOffsets) -> list[Span]:
    """Cut `text` into spans of at most `max_tokens` tokens, at sentence ends where possible.

    A sentence that is too long by itself is cut between two tokens. Nothing is left out but
    white space at the edges; a blank text has no spans.
    """
    starts = [start for start, _ in token_offsets(text)]
    spans = (_trim(text, span) for span in _fill(_pieces(text, starts, max_tokens), max_tokens))
    return [span for span in spans if span.start < span.end]


class _Piece(NamedTuple):
    start: int
    end: int
    tokens: int


def _pieces(text: str, starts: Sequence[int], max_tokens: int) -> Iterator[_Piece]:
    """Sentences, and parts of those that are too long."""
    for sentence in _sentences(text):
        first, last = bisect_left(starts, sentence.start), bisect_left(starts, sentence.end)
        cuts = range(first + max_tokens, last, max_tokens)
        edges = [sentence.start, *(starts[cut] for cut in cuts), sentence.end]
        counts = [min(max_tokens, last - cut) for cut in range(first, last, max_tokens)] or [0]
        yield from map(_Piece, edges, edges[1:], counts)


def _sentences(text: str) -> Iterator[Span]:
    start = 0
    for end in SENTENCE_END.finditer(text):
        yield Span(start, end.end())
        start = end.end()
    yield Span(start, len(text))


def _fill(pieces: Iterator[_Piece], max_tokens: int) -> Iterator[Span]:
    """As many neighbouring pieces in each span as fit."""
    start = end = tokens = 0
    for piece in pieces:
        if tokens + piece.tokens > max_tokens:
            yield Span(start, end)
            start, tokens = piece.start, 0
        end, tokens = piece.end, tokens + piece.tokens
    yield Span(start, end)


def _trim(text: str, span: Span) -> Span:
    inside = text[span.start : span.end]
    start = span.start + len(inside) - len(inside.lstrip())
    return Span(start, start + len(inside.strip()))
