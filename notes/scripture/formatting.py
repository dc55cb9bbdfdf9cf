"""Writes references in their canonical form: "John 3:16-18", and in OSIS: "John.3.16-John.3.18"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from notes.scripture.book_names import BOOKS, names
from notes.scripture.canon import Place, chapter_count, is_single_chapter, verse_count
from notes.scripture.references import Mention
from notes.scripture.verse_range import BOOK_SIZE, CHAPTER_SIZE, VerseRange


def describe_mention(mention: Mention, text: str, language: str = "en") -> dict[str, Any]:
    """A mention in a text, as the API shows it."""
    return {
        "text": text[mention.start : mention.end],
        "start": mention.start,
        "end": mention.end,
        "canonical": canonical(mention.ranges, language),
        "osis": osis(mention.ranges),
    }


def canonical(ranges: Sequence[VerseRange], language: str = "en") -> str:
    """The ranges of one mention, which follow each other, with the names of books in a language.

    Whole chapters and whole books are written without verses.
    """
    first, last = _ends(ranges)
    table = names()[language]
    separator = table.separator
    start = f"{table.books[BOOKS[first.book - 1]][0]} {_numbers(first, separator)}".strip()
    if first == last:
        return start
    if first.book != last.book:
        return (
            f"{start} - {table.books[BOOKS[last.book - 1]][0]} {_numbers(last, separator)}".strip()
        )
    is_same_chapter = last.verse is not None and first.chapter == last.chapter
    return f"{start}-{last.verse if is_same_chapter else _numbers(last, separator)}"


def osis(ranges: Sequence[VerseRange]) -> str:
    """In the notation of OSIS 2.1.1, with chapters in books of one chapter, too."""
    first, last = _ends(ranges)
    return _osis(first) if first == last else f"{_osis(first)}-{_osis(last)}"


def _ends(ranges: Sequence[VerseRange]) -> tuple[Place, Place]:
    """The first and the last place, without verses or chapters if these are whole."""
    first, last = _place(ranges[0].start), _place(ranges[-1].end)
    begins_chapter = first.verse == 1
    ends_chapter = last.verse == verse_count(last.book, last.chapter or 1)
    if not (begins_chapter and ends_chapter):
        return first, last
    if first.chapter == 1 and last.chapter == chapter_count(last.book):
        return Place(first.book), Place(last.book)
    return Place(first.book, first.chapter), Place(last.book, last.chapter)


def _place(verse: int) -> Place:
    book, rest = divmod(verse, BOOK_SIZE)
    return Place(book, *divmod(rest, CHAPTER_SIZE))


def _numbers(place: Place, separator: str) -> str:
    numbers = [place.chapter, place.verse]
    if is_single_chapter(place.book) and place.verse:
        numbers = [place.verse]
    return separator.join(str(number) for number in numbers if number)


def _osis(place: Place) -> str:
    parts = (BOOKS[place.book - 1], place.chapter, place.verse)
    return ".".join(str(part) for part in parts if part)
