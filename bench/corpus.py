"""Texts of the King James Bible, which is in the public domain, and notes made of them."""

from __future__ import annotations

import random
from functools import cache

import pythonbible

from notes.models import Note, text_hash
from scribes.embedded.sample_texts import chapter_verses
from scribes.models import User

BOOKS = 66
MAX_VERSES = 12


@cache
def verses() -> list[str]:
    """All 31,102 verses in order."""
    return [
        verse
        for book in list(pythonbible.Book)[:BOOKS]
        for chapter in range(1, pythonbible.get_number_of_chapters(book) + 1)
        for verse in chapter_verses(book, chapter)
    ]


def texts(number: int, seed: int = 0) -> list[str]:
    """Random passages of one to MAX_VERSES consecutive verses; the same ones for the same seed."""
    choice = random.Random(seed)
    starts = choice.choices(range(len(verses()) - MAX_VERSES), k=number)
    return ["\n".join(verses()[at : at + choice.randint(1, MAX_VERSES)]) for at in starts]


def make_notes(user: User, contents: list[str]) -> list[Note]:
    """Notes with these contents. They have no embeddings, and none is pending."""
    notes = [
        Note(user=user, title=f"Note {n}", content=text, tags=["kjv"])
        for n, text in enumerate(contents, 1)
    ]
    for note in notes:
        note.text_hash = text_hash(note)
    return Note.objects.bulk_create(notes, batch_size=1000)
