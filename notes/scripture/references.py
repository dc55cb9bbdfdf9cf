"""Finds references to scripture in text: "1 Cor 13:4-7; Rom 8.28" -> ranges of verses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

from notes.scripture.verse_range import LETTER_AND_NUMBER, MAX_PIECES, VerseRange

# Only the start of a long text is searched, since the request that saves the note waits for it.
MAX_SCANNED_CHARACTERS = 100_000
MAX_REFERENCES = 1000
# What looks like a reference takes up to half a millisecond to parse. Some are invalid or come twice.
MAX_CANDIDATES = 1200

SPACES = re.compile(r"[^\S\n]+")
DASHES = re.compile(r" ?[‐‑‒–—−] ?")
SEPARATOR = re.compile(r"[;\n]")
NUMBERS_ONLY = re.compile(r"\s*(?:and|&|,)?\s*(\d+\s*[:.]\s*\d.*)", re.DOTALL)


class ParsedText(NamedTuple):
    references: list[VerseRange]
    """The first MAX_REFERENCES, in order, each once."""
    unparsed: list[str]
    """The parts of the field for references in which no reference was found."""


def find_references(field: str) -> list[VerseRange]:
    """The references in a field for references."""
    return parse_note(field, "").references


def parse_note(field: str, text: str) -> ParsedText:
    """The references in a note's field for references and in its text.

    The name of a book alone counts in the field only: in a text, John may be a person. Takes up to a
    second: MAX_CANDIDATES are parsed.
    """
    budget = iter(range(MAX_CANDIDATES))
    in_field = list(_parse_pieces(field[:MAX_SCANNED_CHARACTERS], budget, whole_books=True))
    in_text = _parse_pieces(text[:MAX_SCANNED_CHARACTERS], budget, whole_books=False)
    found: dict[VerseRange, None] = {}
    for _, ranges in islice(chain(in_field, in_text), MAX_PIECES):
        found.update(dict.fromkeys(ranges))
        if len(found) >= MAX_REFERENCES:
            break
    unparsed = [piece.strip() for piece, ranges in in_field if piece.strip() and not ranges]
    return ParsedText(list(found)[:MAX_REFERENCES], unparsed)


def _parse_pieces(
    text: str, budget: Iterator[int], *, whole_books: bool
) -> Iterator[tuple[str, list[VerseRange]]]:
    """Each part between separators with its references. In "Rom 8:28; 12:1" both are in Romans."""
    # Imported here and not above: pythonbible takes 0.15 s to import and some memory. Processes that
    # never read a note's text (beat, Flower, most workers) start without it.
    from notes.scripture.parser import book_title, parse_references

    book = ""
    # Spaces are collapsed first: a pattern that starts with any number of spaces is slow on many.
    for piece in SEPARATOR.split(DASHES.sub("-", SPACES.sub(" ", text))):
        if book and (numbers := NUMBERS_ONLY.match(piece)):
            found = parse_references(f"{book} {numbers[1]}", whole_books, budget)
        elif whole_books or LETTER_AND_NUMBER.search(piece):
            found = parse_references(piece, whole_books, budget)
        else:
            found = []
        book = book_title(found[-1]) if found else ""
        yield piece, found
