"""Ranges of verses."""

from __future__ import annotations

from typing import NamedTuple

# A verse is pythonbible's number for it: book, chapter and verse, as in 43_003_016 for John 3:16.
BOOK_SIZE = 1_000_000
CHAPTER_SIZE = 1000


class VerseRange(NamedTuple):
    """A range of verses in one book. Both ends are included."""

    start: int
    end: int

    @property
    def book_start(self) -> int:
        """A number smaller than that of any verse in the book."""
        return self.start // BOOK_SIZE * BOOK_SIZE
