"""Reads one piece of text with pythonbible: "Jn 3:14-21" -> ranges of verses.

Importing this module imports pythonbible, which is slow: see notes.scripture.references.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, takewhile

import pythonbible as bible
from pythonbible.parser import SCRIPTURE_REFERENCE_REGULAR_EXPRESSION as REFERENCE
from pythonbible.parser import convert_all_roman_numerals_to_integers, normalize_reference

from notes.scripture.verse_range import (
    BOOK_SIZE,
    CHAPTER_SIZE,
    LETTER_AND_NUMBER,
    VerseRange,
)

# The end of a range in another book, as in "Gen 1 - 1 Sam 3". Letters of any script: pythonbible
# ignores case as Unicode does, so that "ſ" is an "s".
DASH_AND_BOOK = re.compile(r"-\s*(?:\d\s?)?[^\W\d_]")


def parse_references(piece: str, whole_books: bool, budget: Iterator[int]) -> list[VerseRange]:
    """The references in a piece of text without separators, in order.

    With `whole_books`, the name of a book alone is a reference, too. Takes one item of the budget for
    each candidate, and finds nothing more when it is used up.
    """
    candidates = REFERENCE.finditer(convert_all_roman_numerals_to_integers(piece))
    affordable = takewhile(lambda _: next(budget, None) is not None, candidates)
    return [
        verses
        for candidate in (match[1] for match in affordable)
        if whole_books or LETTER_AND_NUMBER.search(candidate)
        for verses in _parse_candidate(_without_third_book(candidate))
    ]


def book_title(verses: VerseRange) -> str:
    return str(bible.Book(verses.start // BOOK_SIZE).title)


def _without_third_book(candidate: str) -> str:
    """The candidate up to the end of its second book.

    pythonbible reads two books, but looks for all of them, which takes a time that is quadratic in
    their number: minutes for "Jn 1,2-Jn 1,2-" and so on.
    """
    ends = [end.start() for end in islice(DASH_AND_BOOK.finditer(candidate), 2)]
    return candidate[: ends[1]] if len(ends) == 2 else candidate


def _parse_candidate(candidate: str) -> list[VerseRange]:
    """Empty for text that pythonbible finds but cannot read, such as "John.2"."""
    try:
        found = [verses for part in normalize_reference(candidate) for verses in _ranges(part)]
    except (ValueError, IndexError, bible.InvalidChapterError):
        return []
    return [verses for verses in found if verses.start <= verses.end]


def _ranges(reference: bible.NormalizedReference) -> Iterator[VerseRange]:
    """One range for each book in the reference."""
    last = reference.end_book or reference.book
    for book in range(reference.book.value, last.value + 1):
        first = book == reference.book.value
        start = (reference.start_chapter or 1, reference.start_verse or 1) if first else (1, 1)
        end = (reference.end_chapter, reference.end_verse) if book == last.value else (None, None)
        yield VerseRange(_verse(book, *start), _last_verse(bible.Book(book), *end))


def _verse(book: int, chapter: int, verse: int) -> int:
    return book * BOOK_SIZE + chapter * CHAPTER_SIZE + verse


def _last_verse(book: bible.Book, chapter: int | None, verse: int | None) -> int:
    """The verse; without one, the last verse of the chapter; without a chapter, of the book."""
    chapter = chapter or bible.get_number_of_chapters(book)
    return _verse(book.value, chapter, verse or bible.get_number_of_verses(book, chapter))
