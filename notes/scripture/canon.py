"""Which books, chapters and verses there are, in the numbering of the King James Version.

Other numberings are mapped to it where they have a verse that it lacks: see `verse_number`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from notes.scripture.verse_range import BOOK_SIZE, CHAPTER_SIZE, VerseRange

JOEL, MALACHI, THIRD_JOHN = 29, 39, 64


class Place(NamedTuple):
    """A book by its number, and a chapter and a verse if they are named."""

    book: int
    chapter: int | None = None
    verse: int | None = None


@cache
def _verse_counts(book: int) -> tuple[int, ...]:
    """The number of verses of each chapter."""
    # Imported here and not above: pythonbible takes 0.15 s to import and some memory. Processes that
    # never read a note's text (beat, Flower, most workers) start without it.
    from pythonbible.verses import MAX_VERSE_NUMBER_BY_BOOK_AND_CHAPTER as COUNTS

    return tuple(next(counts for key, counts in COUNTS.items() if key.value == book))


def chapter_count(book: int) -> int:
    return len(_verse_counts(book))


def verse_count(book: int, chapter: int) -> int:
    """0 if there is no such chapter."""
    counts = _verse_counts(book)
    return counts[chapter - 1] if 0 < chapter <= len(counts) else 0


def is_single_chapter(book: int) -> bool:
    return chapter_count(book) == 1


def verse_number(book: int, chapter: int, verse: int) -> int | None:
    """The number of a verse; None if there is no such verse.

    Verses that exist only in another numbering are mapped: 3 John 15 (in the Greek text verse 14 ends
    earlier), Joel 4 and Malachi 3:19-24 (the Hebrew text divides these chapters elsewhere). A verse that
    exists in both numberings is taken as it is written.
    """
    if 0 < verse <= verse_count(book, chapter):
        return book * BOOK_SIZE + chapter * CHAPTER_SIZE + verse
    if (book, chapter, verse) == (THIRD_JOHN, 1, 15):
        return verse_number(book, 1, 14)
    if (book, chapter) == (JOEL, 4):
        return verse_number(book, 3, verse)
    if (book, chapter) == (MALACHI, 3) and verse > verse_count(book, 3):
        return verse_number(book, 4, verse - verse_count(book, 3))
    return None


def first_verse(place: Place) -> int | None:
    """The number of the first verse of the place; None if there is no such place."""
    chapter = 1 if place.chapter is None else place.chapter
    return verse_number(place.book, chapter, 1 if place.verse is None else place.verse)


def last_verse(place: Place) -> int | None:
    """The number of the last verse of the place; None if there is no such place."""
    chapter = chapter_count(place.book) if place.chapter is None else place.chapter
    verse = verse_count(place.book, chapter) if place.verse is None else place.verse
    return verse_number(place.book, chapter, verse)


def ranges_between(first: Place, last: Place) -> list[VerseRange]:
    """From the first verse of one place to the last of another: a range for each book.

    Empty if a place does not exist, or the last one comes before the first.
    """
    start, end = first_verse(first), last_verse(last)
    if start is None or end is None or end < start:
        return []
    books = range(first.book, last.book + 1)
    starts = [start, *(book * BOOK_SIZE + CHAPTER_SIZE + 1 for book in books[1:])]
    ends = [*(last_verse(Place(book)) for book in books[:-1]), end]
    return [VerseRange(a, b) for a, b in zip(starts, ends, strict=True) if b is not None]
