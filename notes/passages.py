"""A note's text -> passages that fit the embedding model. Pure: no database, no model.

Passages end where sentences or sections do; neighbours in a section overlap by a little. Every
character that is not white space is in at least one passage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

# The end of a sentence, with its closing quotes or brackets and the white space behind it, or a
# line's end. Nothing in it repeats without bound before a part that can fail, so it is linear.
SENTENCE_END = re.compile(r"""[.!?…]["'”’»)\]*_]{0,4}\s+|[。！？]|\n+""")

# A heading or the fence of a code block, where "# " is a comment: CommonMark 0.31, 4.2 and 4.5.
HEADING_OR_FENCE = re.compile(
    r"^ {0,3}(?:(?P<fence>```|~~~)|#{1,6}[ \t]+(?P<heading>\S.*))", re.MULTILINE
)
HEADING_MAX_CHARACTERS = 100

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
    """text[start:end], in characters, and what stands over it."""

    start: int
    end: int
    heading: str = ""
    """Of the section that it continues; empty where the section has none or starts here."""


class _Section(NamedTuple):
    start: int
    end: int
    heading: str


class _Piece(NamedTuple):
    """A sentence, or a part of a very long one."""

    start: int
    end: int
    tokens: int
    heading: str
    """What stands over it; empty for the section's first piece, which has the heading in it."""
    heading_tokens: int
    opens: bool
    """Whether it is the first of its section."""


def split(text: str, max_tokens: int, overlap_tokens: int, tokenize: Tokenize) -> list[Span]:
    """Cut `text` into spans of at most `max_tokens` tokens, at sentence ends where possible.

    A span ends at a heading, too, once it is a third full, so that small sections stay together.
    Otherwise the next one starts with its last sentences, as far as they fit in
    `overlap_tokens`. A sentence that is too long by itself is cut between two words. A span and
    its heading have at most `max_tokens` together. Nothing is left out but white space at the
    edges; a blank text has no spans. Takes time in proportion to the text.
    """
    pieces = (
        piece
        for section in _sections(text)
        for piece in _pieces(text, section, max_tokens, tokenize)
    )
    spans = (_trim(text, span) for span in _fill(pieces, max_tokens, overlap_tokens))
    return [span for span in spans if span.start < span.end]


def heading_over(text: str, position: int) -> str:
    """Of the section that text[position] is in; empty where it has none."""
    heading = ""
    for section in _sections(text):
        if section.start > position:
            break
        heading = section.heading
    return heading


def _sections(text: str) -> Iterator[_Section]:
    """From one heading to the next, each with its own heading's text."""
    start, heading, fence = 0, "", ""
    for mark in HEADING_OR_FENCE.finditer(text):
        if mark["fence"]:
            # A fence of the other kind is text in the block.
            fence = mark["fence"] if not fence else fence.replace(mark["fence"], "")
        elif not fence:
            yield _Section(start, mark.start(), heading)
            start, heading = mark.start(), mark["heading"].strip(" \t#")[:HEADING_MAX_CHARACTERS]
    yield _Section(start, len(text), heading)


def _pieces(text: str, section: _Section, max_tokens: int, tokenize: Tokenize) -> Iterator[_Piece]:
    heading, heading_tokens = _cut_heading(section.heading, max_tokens // 4, tokenize)
    for sentence in _sentences(text, section):
        for start, end, tokens in _fitting(text, sentence, max_tokens - heading_tokens, tokenize):
            if start == section.start:
                yield _Piece(start, end, tokens, "", 0, opens=True)
            else:
                yield _Piece(start, end, tokens, heading, heading_tokens, opens=False)


def _cut_heading(heading: str, max_tokens: int, tokenize: Tokenize) -> tuple[str, int]:
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


def _fitting(
    text: str, sentence: Span, max_tokens: int, tokenize: Tokenize
) -> Iterator[tuple[int, int, int]]:
    """The sentence as it is, or in as few parts as fit: start, end and tokens of each."""
    start = sentence.start
    while start < sentence.end:
        stop = min(sentence.end, start + max_tokens * WINDOW_CHARACTERS_PER_TOKEN)
        tokens = tokenize(text[start:stop])
        if stop == sentence.end and len(tokens) <= max_tokens:
            count, end = len(tokens), stop
        else:
            count = _cut(tokens, max_tokens)
            end = start + tokens[count].start if count < len(tokens) else stop
            # A character may be more than one token: never stay where we are.
            end = max(end, start + 1)
        yield start, end, count
        start = end


def _cut(tokens: Sequence[Token], max_tokens: int) -> int:
    """How many tokens to keep: up to the last word that starts in time, if there is one."""
    latest = min(max_tokens, len(tokens) - 1)
    for count in range(latest, 0, -1):
        if tokens[count].word != tokens[count - 1].word:
            return count
    return min(max_tokens, len(tokens))


def _fill(pieces: Iterable[_Piece], max_tokens: int, overlap_tokens: int) -> Iterator[Span]:
    """As many neighbouring pieces in each span as fit."""
    window: list[_Piece] = []
    tokens = 0
    for piece in pieces:
        full = window and window[0].heading_tokens + tokens + piece.tokens > max_tokens
        if full or (piece.opens and tokens * 3 >= max_tokens):
            yield _span(window)
            room = max_tokens - piece.tokens - piece.heading_tokens
            window = [] if piece.opens else _tail(window, min(overlap_tokens, room))
            tokens = sum(kept.tokens for kept in window)
        window.append(piece)
        tokens += piece.tokens
    if window:
        yield _span(window)


def _span(window: list[_Piece]) -> Span:
    return Span(window[0].start, window[-1].end, window[0].heading)


def _tail(pieces: list[_Piece], max_tokens: int) -> list[_Piece]:
    """The last pieces of the same section, as many as fit."""
    first = len(pieces)
    while first > 0 and 0 < max_tokens >= pieces[first - 1].tokens and not pieces[first - 1].opens:
        first -= 1
        max_tokens -= pieces[first].tokens
    return pieces[first:]


def _trim(text: str, span: Span) -> Span:
    inside = text[span.start : span.end]
    start = span.start + len(inside) - len(inside.lstrip())
    return span._replace(start=start, end=start + len(inside.strip()))
