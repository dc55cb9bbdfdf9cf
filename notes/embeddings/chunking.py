"""Cuts a note's text into passages that fit the embedding model. Uses no database and no model.

Passages end where sentences or sections end. Neighbours within a section overlap a little. Every
character that is not white space is in at least one passage.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

# The end of a sentence with its closing quotes or brackets and the white space after it, or the end
# of a line. No part that can fail follows an unbounded repetition, so matching takes linear time.
SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]*_]{0,4}\s+|[。！？]|\n+""")

# A heading, or the fence of a code block, in which "# " starts a comment: CommonMark 0.31, sections
# 4.2 and 4.5.
HEADING_OR_FENCE = re.compile(
    r"^ {0,3}(?:(?P<fence>```|~~~)|#{1,6}[ \t]+(?P<heading>\S.*))", re.MULTILINE
)
HEADING_MAX_CHARACTERS = 100

# A sentence is tokenized in windows of this size. In languages where each character is a token, such
# as Chinese, larger windows would tokenize the same text again and again.
WINDOW_CHARACTERS_PER_TOKEN = 2


class Token(NamedTuple):
    start: int
    """Offset in the text, in characters."""
    word: int | None
    """Number of the word that the token is part of. A cut inside a word changes its other tokens."""


Tokenize = Callable[[str], Sequence[Token]]


class Span(NamedTuple):
    """The passage text[start:end], in characters."""

    start: int
    end: int
    heading: str = ""
    """Heading of the section that the passage continues; empty if the section starts here."""


class _Section(NamedTuple):
    start: int
    end: int
    heading: str


class _Piece(NamedTuple):
    """A sentence, or a part of a very long sentence."""

    start: int
    end: int
    tokens: int
    heading: str
    """Empty for the first piece of a section, which contains the heading."""
    heading_tokens: int
    starts_section: bool


def split(text: str, max_tokens: int, overlap_tokens: int, tokenize: Tokenize) -> list[Span]:
    """Cut `text` into spans of at most `max_tokens` tokens, at sentence ends where possible.

    A span also ends at a heading once it is a third full, so that small sections stay together.
    Otherwise the next span starts with the last sentences of the one before, as many as fit in
    `overlap_tokens`. A sentence that is too long is cut between two words. A span and its heading
    have at most `max_tokens` together. Only white space at the edges is left out, and a blank text
    has no spans. The time is linear in the length of the text.
    """
    pieces = (
        piece
        for section in _sections(text)
        for piece in _pieces(text, section, max_tokens, tokenize)
    )
    spans = (_trim(text, span) for span in _merge(pieces, max_tokens, overlap_tokens))
    return [span for span in spans if span.start < span.end]


def heading_at(text: str, position: int) -> str:
    """The heading of the section that contains text[position]; empty if it has none."""
    return headings_at(text, [position])[0]


def headings_at(text: str, positions: Sequence[int]) -> list[str]:
    """The same for several positions, in a time that is linear in the length of the text."""
    sections = list(_sections(text))
    starts = [section.start for section in sections]
    return [sections[bisect_right(starts, position) - 1].heading for position in positions]


def _sections(text: str) -> Iterator[_Section]:
    """The parts of the text from one heading to the next."""
    start, heading, fence = 0, "", ""
    for mark in HEADING_OR_FENCE.finditer(text):
        if mark["fence"]:
            # Inside a code block, a fence of the other kind is ordinary text.
            fence = mark["fence"] if not fence else fence.replace(mark["fence"], "")
        elif not fence:
            yield _Section(start, mark.start(), heading)
            start, heading = mark.start(), mark["heading"].strip(" \t#")[:HEADING_MAX_CHARACTERS]
    yield _Section(start, len(text), heading)


def _pieces(text: str, section: _Section, max_tokens: int, tokenize: Tokenize) -> Iterator[_Piece]:
    heading, heading_tokens = _truncate_heading(section.heading, max_tokens // 4, tokenize)
    room = max_tokens - heading_tokens
    for sentence in _sentences(text, section):
        for start, end, tokens in _split_sentence(text, sentence, room, tokenize):
            if start == section.start:
                yield _Piece(start, end, tokens, "", 0, starts_section=True)
            else:
                yield _Piece(start, end, tokens, heading, heading_tokens, starts_section=False)


def _truncate_heading(heading: str, max_tokens: int, tokenize: Tokenize) -> tuple[str, int]:
    """The heading, or its beginning, and the number of its tokens."""
    tokens = tokenize(heading)
    if len(tokens) <= max_tokens:
        return heading, len(tokens)
    heading = heading[: tokens[max_tokens].start]
    return heading, len(tokenize(heading))


def _sentences(text: str, section: _Section) -> Iterator[Span]:
    start = section.start
    for end in SENTENCE_END.finditer(text, section.start, section.end):
        yield Span(start, end.end())
        start = end.end()
    yield Span(start, section.end)


def _split_sentence(
    text: str, sentence: Span, max_tokens: int, tokenize: Tokenize
) -> Iterator[tuple[int, int, int]]:
    """The sentence in as few parts as possible: start, end and tokens of each."""
    start = sentence.start
    while start < sentence.end:
        stop = min(sentence.end, start + max_tokens * WINDOW_CHARACTERS_PER_TOKEN)
        tokens = tokenize(text[start:stop])
        if stop == sentence.end and len(tokens) <= max_tokens:
            count, end = len(tokens), stop
        else:
            count = _tokens_to_keep(tokens, max_tokens)
            end = start + tokens[count].start if count < len(tokens) else stop
            # A character may be more than one token. Always move on by at least one character.
            end = max(end, start + 1)
        yield start, end, count
        start = end


def _tokens_to_keep(tokens: Sequence[Token], max_tokens: int) -> int:
    """The largest number of tokens that ends between two words, or `max_tokens` without any."""
    latest = min(max_tokens, len(tokens) - 1)
    for count in range(latest, 0, -1):
        if tokens[count].word != tokens[count - 1].word:
            return count
    return min(max_tokens, len(tokens))


def _merge(pieces: Iterable[_Piece], max_tokens: int, overlap_tokens: int) -> Iterator[Span]:
    """Put as many neighbouring pieces into each span as fit."""
    window: list[_Piece] = []
    tokens = 0
    for piece in pieces:
        is_full = window and window[0].heading_tokens + tokens + piece.tokens > max_tokens
        if is_full or (piece.starts_section and tokens * 3 >= max_tokens):
            yield _span(window)
            room = max_tokens - piece.tokens - piece.heading_tokens
            window = [] if piece.starts_section else _overlap(window, min(overlap_tokens, room))
            tokens = sum(kept.tokens for kept in window)
        window.append(piece)
        tokens += piece.tokens
    if window:
        yield _span(window)


def _span(window: list[_Piece]) -> Span:
    return Span(window[0].start, window[-1].end, window[0].heading)


def _overlap(pieces: list[_Piece], max_tokens: int) -> list[_Piece]:
    """The last pieces of the same section, as many as fit."""
    first = len(pieces)
    while first > 0 and not pieces[first - 1].starts_section:
        if max_tokens <= 0 or pieces[first - 1].tokens > max_tokens:
            break
        first -= 1
        max_tokens -= pieces[first].tokens
    return pieces[first:]


def _trim(text: str, span: Span) -> Span:
    """The span without white space at its edges."""
    inside = text[span.start : span.end]
    start = span.start + len(inside) - len(inside.lstrip())
    return span._replace(start=start, end=start + len(inside.strip()))
