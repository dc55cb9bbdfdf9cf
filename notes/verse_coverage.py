"""How many of a user's notes refer to each book and chapter of the Bible."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Any

from django.db import connection

from notes.scripture.book_names import BOOKS, names
from notes.scripture.verse_range import BOOK_SIZE, CHAPTER_SIZE
from scribes.models import User

# A reference never leaves its book, so its chapters follow each other. The row of a book has no chapter.
COVERAGE_SQL = """
SELECT place / %(chapters)s AS book, place %% %(chapters)s AS chapter, count(DISTINCT note_id)
FROM (
    SELECT DISTINCT note_id, start_verse / %(chapter_size)s AS first, end_verse / %(chapter_size)s AS last
    FROM scripture_references WHERE user_id = %(user)s
) chapters, generate_series(first, last) AS place
GROUP BY GROUPING SETS ((place / %(chapters)s), (place / %(chapters)s, place %% %(chapters)s))
ORDER BY book, chapter NULLS FIRST
"""


def verse_coverage(user: User, language: str) -> list[dict[str, Any]]:
    """The books that notes refer to, in canonical order, with their chapters. One query."""
    parameters = {
        "user": user.pk,
        "chapter_size": CHAPTER_SIZE,
        "chapters": BOOK_SIZE // CHAPTER_SIZE,
    }
    with connection.cursor() as cursor:
        cursor.execute(COVERAGE_SQL, parameters)
        rows = cursor.fetchall()
    books = names()[language].books
    return [_book(books, book, list(same)) for book, same in groupby(rows, itemgetter(0))]


def _book(books: Any, book: int, rows: list[tuple[int, int | None, int]]) -> dict[str, Any]:
    code = BOOKS[book - 1]
    (_, _, notes), *chapters = rows
    return {
        "osis": code,
        "name": books[code][0],
        "notes": notes,
        "chapters": [{"chapter": chapter, "notes": count} for _, chapter, count in chapters],
    }
