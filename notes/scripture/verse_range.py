"""Ranges of verses, and what both stages of reading references share."""

from __future__ import annotations

import re
from typing import NamedTuple

# A verse is pythonbible's number for it: book, chapter and verse, as in 43_003_016 for John 3:16.
BOOK_SIZE = 1_000_000
CHAPTER_SIZE = 1000

# The limit for the pieces of a text.
MAX_PIECES = 2000

# Text without this has no reference with a chapter.
LETTER_AND_NUMBER = re.compile(r"[A-Za-z]\.?\s*\d")


class VerseRange(NamedTuple):
    """A range of verses in one book. Both ends are included."""

    start: int
    end: int

    @property
    def book_start(self) -> int:
        """A number smaller than that of any verse in the book."""
        return self.start // BOOK_SIZE * BOOK_SIZE
