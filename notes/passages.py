"""A note's text -> passages that fit the embedding model. Pure: no database, no model.

Passages lie end to end: every character that is not white space is in exactly one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

# The end of a sentence, with its closing quotes or brackets and the white space behind it, or a
# line's end. Nothing in it repeats without bound before a part that can fail, so it is linear.
SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]*_]{0,4}\s+|[。！？]|\n+""")

# A sentence that seems to have no end is read in windows of so many characters for each token
# that fits. Where a character is a token, as in Chinese, larger ones would be read again and again.
WINDOW_CHARACTERS_PER_TOKEN = 2


class Token(NamedTuple):
    start: int
    """In characters from the start of the text."""
    word: int | None
    """Tokens of one word share this number. Cutting inside a word changes its other tokens."""


Tokenize = Callable[[str], Sequence[Token]]


class Span(NamedTuple):
    """text[start:end], in characters."""

    start: int
    end: int


class _Piece(NamedTuple):
    start: int
    end: int
    tokens: int


def split(text: str, max_tokens: int, tokenize: Tokenize) -> list[Span]:
    """Cut `text` into spans of at most `max_tokens` tokens, at sentence ends where possible.

    A sentence that is too long by itself is cut between two words. Nothing is left out but
    white space at the edges; a blank text has no spans. Takes time in proportion to the text.
    """
    pieces = (
        piece
        for sentence in _sentences(text)
        for piece in _pieces(text, sentence, max_tokens, tokenize)
    )
    spans = (_trim(text, span) for span in _fill(pieces, max_tokens))
    return [span for span in spans if span.start < span.end]


def _sentences(text: str) -> Iterator[Span]:
    start = 0
    for end in SENTENCE_END.finditer(text):
        yield Span(start, end.end())
        start = end.end()
    yield Span(start, len(text))


def _pieces(text: str, sentence: Span, max_tokens: int, tokenize: Tokenize) -> Iterator[_Piece]:
    """The sentence as it is, or in as few parts as fit."""
    start = sentence.start
    while start < sentence.end:
        stop = min(sentence.end, start + max_tokens * WINDOW_CHARACTERS_PER_TOKEN)
        tokens = tokenize(text[start:stop])
        if stop == sentence.end and len(tokens) <= max_tokens:
            count, end = len(tokens), stop
        else:
            count = _cut(tokens, max_tokens)
            end = start + tokens[count].start if count < len(tokens) else stop
        yield _Piece(start, end, count)
        start = end


def _cut(tokens: Sequence[Token], max_tokens: int) -> int:
    """How many tokens to keep: up to the last word that starts in time, if there is one."""
    latest = min(max_tokens, len(tokens) - 1)
    for count in range(latest, 0, -1):
        if tokens[count].word != tokens[count - 1].word:
            return count
    return min(max_tokens, len(tokens))


def _fill(pieces: Iterable[_Piece], max_tokens: int) -> Iterator[Span]:
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
