"""One piece of text -> ranges of verses, as pythonbible reads it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pythonbible as bible
from pythonbible.parser import SCRIPTURE_REFERENCE_REGULAR_EXPRESSION as REFERENCE
from pythonbible.parser import convert_all_roman_numerals_to_integers, normalize_reference

from notes.scripture import BOOK_SIZE, LETTER_AND_NUMBER, MAX_PIECES, VerseRange


def read(piece: str, whole_books: bool) -> list[VerseRange]:
    """What a piece without separators refers to, in order; with `whole_books`, to a book's name
    alone, too."""
    candidates = REFERENCE.finditer(convert_all_roman_numerals_to_integers(piece))
    return [
        verses
        for candidate in (match[1] for match in islice(candidates, MAX_PIECES))
        if whole_books or LETTER_AND_NUMBER.search(candidate)
        for verses in _verses(candidate)
    ]


def title(verses: VerseRange) -> str:
    """The title of its book."""
    return str(bible.Book(verses.start // BOOK_SIZE).title)


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
