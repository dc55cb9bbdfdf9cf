"""Text such as "1 Cor 13:4-7; Rom 8.28" -> ranges of verses, as notes refer to them.

A verse is pythonbible's number for it: book, chapter and verse, as in 43_003_016 for John 3:16.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pythonbible as bible

BOOK_SIZE = 1_000_000
# Of a note's text. Looking for references takes about a second for so many characters at worst,
# and the request that saves the note waits for it.
SCANNED_CHARACTERS = 100_000
MAX_REFERENCES = 1000

DASHES = re.compile(r"\s*[‐‑‒–—−]\s*")
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


def references(text: str) -> list[VerseRange]:
    """All references in a text, in order, without doubles. What is none is passed over.

    The first SCANNED_CHARACTERS of it, and at most MAX_REFERENCES.
    """
    found: dict[VerseRange, None] = {}
    for _, ranges in _pieces(text[:SCANNED_CHARACTERS]):
        found.update(dict.fromkeys(ranges))
        if len(found) >= MAX_REFERENCES:
            break
    return list(found)[:MAX_REFERENCES]


def unreadable(field: str) -> list[str]:
    """The parts of a field for references that hold none."""
    return [piece.strip() for piece, ranges in _pieces(field) if piece.strip() and not ranges]


def _pieces(text: str) -> Iterator[tuple[str, list[VerseRange]]]:
    """Each part between separators, with what it refers to: in "Rom 8:28; 12:1", twice Romans."""
    book = ""
    for piece in SEPARATOR.split(DASHES.sub("-", text)):
        if book and (numbers := NUMBERS_ONLY.match(piece)):
            found = bible.get_references(f"{book} {numbers[1]}")
        elif LETTER_AND_NUMBER.search(piece):
            found = bible.get_references(piece)
        else:
            found = []
        book = found[-1].book.title if found else ""
        yield piece, [verses for reference in found for verses in _ranges(reference)]


def _ranges(reference: bible.NormalizedReference) -> Iterator[VerseRange]:
    """One for each book that it touches."""
    last = reference.end_book or reference.book
    for book in range(reference.book.value, last.value + 1):
        first = book == reference.book.value
        start = (reference.start_chapter or 1, reference.start_verse or 1) if first else (1, 1)
        end = (reference.end_chapter, reference.end_verse) if book == last.value else (None, None)
        yield VerseRange(_verse(book, *start), _last_verse(bible.Book(book), *end))


def _verse(book: int, chapter: int, verse: int) -> int:
    return book * BOOK_SIZE + chapter * 1000 + verse


def _last_verse(book: bible.Book, chapter: int | None, verse: int | None) -> int:
    chapter = chapter or bible.get_number_of_chapters(book)
    return _verse(book.value, chapter, verse or bible.get_number_of_verses(book, chapter))
