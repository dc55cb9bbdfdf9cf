"""Finds references to scripture in text: "1 Cor 13:4-7; Rom 8.28" -> ranges of verses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, takewhile
from typing import NamedTuple

from notes.scripture.book_finder import Found, find_book
from notes.scripture.canon import Place, ranges_between
from notes.scripture.locators import Item, LocatorReader, Locators
from notes.scripture.prose import is_reference
from notes.scripture.tokens import Token, tokenize
from notes.scripture.verse_range import VerseRange

# Only the start of a long text is searched, since the request that saves the note waits for it.
MAX_SCANNED_CHARACTERS = 100_000
MAX_REFERENCES = 1000

SEPARATOR = re.compile(r"[;\n]")


class Mention(NamedTuple):
    """A part of a text that refers to scripture."""

    ranges: tuple[VerseRange, ...]
    start: int
    end: int
    """Its position in the text, in characters."""


class ParsedText(NamedTuple):
    mentions: dict[str, list[Mention]]
    """In the field ("scripture_refs") and in the text ("content"), with at most MAX_REFERENCES ranges."""
    unparsed: list[str]
    """The parts of the field for references that are none, or name a verse that does not exist."""

    @property
    def references(self) -> list[VerseRange]:
        """All ranges, each once."""
        mentions = chain(*self.mentions.values())
        return list(dict.fromkeys(verses for mention in mentions for verses in mention.ranges))


class Scan(NamedTuple):
    mentions: list[Mention]
    """In the order of the text."""
    invalid: list[Mention]
    """Those that name no verse, such as John 3:99. They have no ranges."""


def find_references(field: str) -> list[VerseRange]:
    """The references in a field for references."""
    return parse_note(field, "").references


def parse_note(field: str, text: str) -> ParsedText:
    """The references in a note's field for references and in its text.

    In the field, the name of a book alone counts, too, and so does any abbreviation: in a text, John may
    be a person. Takes time in proportion to the length of both.
    """
    in_field = find_mentions(field[:MAX_SCANNED_CHARACTERS], in_field=True)
    in_text = find_mentions(text[:MAX_SCANNED_CHARACTERS], in_field=False)
    of_field = _first_mentions(in_field.mentions, MAX_REFERENCES)
    left = MAX_REFERENCES - sum(len(mention.ranges) for mention in of_field)
    mentions = {"scripture_refs": of_field, "content": _first_mentions(in_text.mentions, left)}
    return ParsedText(mentions, _unparsed(field, in_field))


def _first_mentions(mentions: Sequence[Mention], most: int) -> list[Mention]:
    """The first mentions, with at most so many ranges together: one mention may have 66."""
    totals = accumulate(len(mention.ranges) for mention in mentions)
    fitting = takewhile(lambda pair: pair[1] <= most, zip(mentions, totals, strict=True))
    return [mention for mention, _ in fitting]


def _unparsed(field: str, scan: Scan) -> list[str]:
    """Pieces between separators without a reference, and parts of others that name no verse."""
    unparsed: dict[str, None] = {}
    start = 0
    for piece in SEPARATOR.split(field[:MAX_SCANNED_CHARACTERS]):
        end = start + len(piece)
        if any(mention.start < end and start < mention.end for mention in scan.mentions):
            inside = [part for part in scan.invalid if start <= part.start < end]
            unparsed.update((field[part.start : part.end], None) for part in inside)
        elif piece.strip():
            unparsed[" ".join(piece.split())] = None
        start = end + 1
    return list(unparsed)


def find_mentions(text: str, *, in_field: bool) -> Scan:
    """The parts of a text that refer to scripture, or with `in_field`, of a field for references."""
    scan = Scan([], [])
    tokens = tokenize(text)
    at = 0
    while at < len(tokens):
        at = _read(tokens, at, scan, in_field) or at + 1
    return scan


def _read(tokens: Sequence[Token], at: int, scan: Scan, in_field: bool) -> int | None:
    """Read a reference that begins with this token; the index after it, or None if there is none."""
    if tokens[at].kind == "sign":
        return None
    if in_field and (end := _read_numbered_books(tokens, at, scan)):
        return end
    found = find_book(tokens, at)
    if found is None:
        return None
    book, locators = _read_locators(tokens, found, in_field)
    if locators.items and (in_field or is_reference(tokens, found, locators.items[0])):
        scan.mentions.extend(_mentions(tokens, found, locators.items))
        scan.invalid.extend(_mentions(tokens, None, locators.invalid))
        return locators.end
    if in_field and locators.invalid:
        scan.invalid.extend(_mentions(tokens, found, locators.invalid))
        return None
    if in_field:
        return _read_whole_book(tokens, found, book, scan)
    return None


def _read_locators(tokens: Sequence[Token], found: Found, in_field: bool) -> tuple[int, Locators]:
    """What follows the name, for the first of its books that has such a place."""
    read = [
        (book, LocatorReader(tokens, found, book, in_field=in_field).read())
        for book in found.name.books
    ]
    return next(((book, locators) for book, locators in read if locators.items), read[0])


def _mentions(
    tokens: Sequence[Token], found: Found | None, items: Sequence[Item]
) -> Iterator[Mention]:
    """One for each item. The first one begins with the name of the book."""
    for item in items:
        start = found.start if found else tokens[item.begin].start
        yield Mention(tuple(item.ranges), start, tokens[item.end - 1].end)
        found = None


# --- Whole books ----------------------------------------------------------------------------


def _read_whole_book(tokens: Sequence[Token], found: Found, book: int, scan: Scan) -> int | None:
    """A name without numbers, or two with a dash between them."""
    if not (found.name.is_full or _is_alone(tokens, found)):
        return None
    last, end = book, found.end
    is_range = end < len(tokens) - 1 and tokens[end].value == "-"
    if is_range and (other := find_book(tokens, end + 1)):
        last, end = other.name.books[0], other.end
    first, last = sorted((book, last))
    ranges = ranges_between(Place(first), Place(last))
    scan.mentions.append(Mention(tuple(ranges), found.start, tokens[end - 1].end))
    return end


def _is_alone(tokens: Sequence[Token], found: Found) -> bool:
    """Whether signs or the ends of lines surround the name."""
    before, end = found.first - 1, found.end
    starts = before < 0 or tokens[before].kind == "sign" or tokens[found.first].is_on_new_line
    return starts and (
        end == len(tokens) or tokens[end].kind == "sign" or tokens[end].is_on_new_line
    )


NUMBER_JOINTS = ("-", ",", "&", "and")


def _read_numbered_books(tokens: Sequence[Token], at: int, scan: Scan) -> int | None:
    """ "1-2 Kings", "1, 2 and 3 John"."""
    end, numbers = at, 0
    while end + 1 < len(tokens) and tokens[end].kind == "number":
        if tokens[end + 1].value not in NUMBER_JOINTS:
            break
        end, numbers = end + 2, numbers + 1
    found = find_book(tokens, end) if numbers and end < len(tokens) else None
    first = _numbered(tokens, at, found) if found and found.end > end + 1 else None
    if found is None or first is None or numbers > 2:
        return None
    ranges = ranges_between(Place(first), Place(found.name.books[0]))
    scan.mentions.append(Mention(tuple(ranges), tokens[at].start, tokens[found.end - 1].end))
    return found.end


def _numbered(tokens: Sequence[Token], at: int, last: Found) -> int | None:
    """The book with the name of the last one, and the number with which the group begins."""
    first = find_book([tokens[at], *tokens[last.first + 1 : last.end]], 0)
    return first.name.books[0] if first else None
