"""Text to try Scribes with: the King James Bible, which is in the public domain."""

from __future__ import annotations

from typing import Any

import pythonbible


def chapter_verses(book: pythonbible.Book, chapter: int) -> list[str]:
    """The verses of one chapter, in order."""
    numbers = range(1, pythonbible.get_number_of_verses(book, chapter) + 1)
    return [verse_text(pythonbible.get_verse_id(book, chapter, number)) for number in numbers]


def verse_text(verse_id: int) -> str:
    """One verse; empty where the King James Bible has none with this number.

    Its square brackets mark words that the translators added, and are left out.
    """
    text = pythonbible.get_verse_text(verse_id, version=pythonbible.Version.KING_JAMES) or ""
    return text.replace("[", "").replace("]", "")


def psalm(number: int) -> dict[str, Any]:
    """The body of a POST /notes with one psalm, one verse per line."""
    content = "\n".join(chapter_verses(pythonbible.Book.PSALMS, number))
    title = f"Psalm {number}"
    return {"title": title, "content": content, "tags": ["psalms"], "scripture_refs": title}
