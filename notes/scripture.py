"""Text such as "1 Cor 13:4-7; Rom 8.28" -> ranges of verses, as notes refer to them.

A verse is pythonbible's number for it: book, chapter and verse, as in 43_003_016 for John 3:16.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

import pythonbible as bible
from pythonbible.parser import SCRIPTURE_REFERENCE_REGULAR_EXPRESSION as REFERENCE
from pythonbible.parser import convert_all_roman_numerals_to_integers, normalize_reference

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
    book = ""
    # Spaces come first: a pattern that may begin with any number of them tries every one.
    for piece in SEPARATOR.split(DASHES.sub("-", SPACES.sub(" ", text))):
        if book and (numbers := NUMBERS_ONLY.match(piece)):
            found = _read(f"{book} {numbers[1]}", whole_books)
        elif whole_books or LETTER_AND_NUMBER.search(piece):
            found = _read(piece, whole_books)
        else:
            found = []
        book = bible.Book(found[-1].start // BOOK_SIZE).title if found else ""
        yield piece, found


def _read(piece: str, whole_books: bool) -> list[VerseRange]:
    candidates = REFERENCE.finditer(convert_all_roman_numerals_to_integers(piece))
    return [
        verses
        for candidate in (match[1] for match in islice(candidates, MAX_PIECES))
        if whole_books or LETTER_AND_NUMBER.search(candidate)
        for verses in _verses(candidate)
    ]


def _verses(candidate: str) -> list[VerseRange]:
    """None, where pythonbible takes for a reference what it then cannot read: "John.2"."""
    try:
        found = [verses for part in normalize_reference(candidate) for verses in _ranges(part)]
    except (ValueError, IndexError, bible.InvalidChapterError):
        return []
    return [verses for verses in found if verses.start <= verses.end]


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
