"""Text such as "1 Cor 13:4-7; Rom 8.28" -> ranges of verses, as notes refer to them.

A verse is pythonbible's number for it: book, chapter and verse, as in 43_003_016 for John 3:16.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

BOOK_SIZE = 1_000_000
# Of a note's text. In so many characters of prose, looking for references takes less than a
# second, and a few where they hold nothing else. The request that saves the note waits for it.
SCANNED_CHARACTERS = 100_000
MAX_REFERENCES = 1000
# Lines, and what semicolons part.
MAX_PIECES = 2000

SPACES = re.compile(r"[^\S\n]+")
DASHES = re.compile(r" ?[‐‑‒–—−] ?")
SEPARATOR = re.compile(r"[;\n]")
NUMBERS_ONLY = re.compile(r"\s*(?:and|&|,)?\s*(\d+\s*[:.]\s*\d.*)", re.DOTALL)
LETTER_AND_NUMBER = re.compile(r"[A-Za-z]\.?\s*\d")


class VerseRange(NamedTuple):
    """From verse to verse, both included, in one book."""

    start: int
    end: int

    @property
    def book_start(self) -> int:
        return self.start // BOOK_SIZE * BOOK_SIZE


def references(field: str, text: str = "") -> list[VerseRange]:
    """All references in a field for them and in a text, in order, without doubles. What is none is
    passed over. The name of a book alone is one in the field; in the text, John may be a person.

    The first SCANNED_CHARACTERS of each, and at most MAX_REFERENCES.
    """
    in_field = _pieces(field[:SCANNED_CHARACTERS], whole_books=True)
    in_text = _pieces(text[:SCANNED_CHARACTERS], whole_books=False)
    found: dict[VerseRange, None] = {}
    for _, ranges in islice(chain(in_field, in_text), MAX_PIECES):
        found.update(dict.fromkeys(ranges))
        if len(found) >= MAX_REFERENCES:
            break
    return list(found)[:MAX_REFERENCES]


def unreadable(field: str) -> list[str]:
    """The parts of a field for references that hold none."""
    pieces = _pieces(field, whole_books=True)
    return [piece.strip() for piece, ranges in pieces if piece.strip() and not ranges]


def _pieces(text: str, *, whole_books: bool) -> Iterator[tuple[str, list[VerseRange]]]:
    """Each part between separators, with what it refers to: in "Rom 8:28; 12:1", twice Romans."""
    # Importing pythonbible takes a third of a second. The first note that a process saves waits for
    # it, and every process that saves none starts without.
    from notes.verses import read, title

    book = ""
    # Spaces come first: a pattern that may begin with any number of them tries every one.
    for piece in SEPARATOR.split(DASHES.sub("-", SPACES.sub(" ", text))):
        if book and (numbers := NUMBERS_ONLY.match(piece)):
            found = read(f"{book} {numbers[1]}", whole_books)
        elif whole_books or LETTER_AND_NUMBER.search(piece):
            found = read(piece, whole_books)
        else:
            found = []
        book = title(found[-1]) if found else ""
        yield piece, found
