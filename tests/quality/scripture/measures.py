"""What is counted for each reader: abbreviations and cases that it reads, and what it finds by mistake."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from notes.scripture.book_names import BOOKS, systems
from notes.scripture.references import find_references
from notes.scripture.verse_range import BOOK_SIZE, CHAPTER_SIZE
from tests.quality.scripture.prose import Paragraph
from tests.quality.scripture.readers import Range, Reader, Text

CASES = Path(__file__).parents[2] / "notes/scripture/cases.jsonl"
TRUE_REFERENCES = Path(__file__).with_name("true_references.jsonl")
ABBREVIATIONS = [
    (abbreviation, BOOKS.index(book) + 1)
    for books in systems().values()
    for book, abbreviation in books.items()
]


class Find(NamedTuple):
    """A range that a reader has found in a paragraph."""

    range: Range
    paragraph: Paragraph


class TrueReference(NamedTuple):
    """A reference that the author of a paragraph did make, as a person has judged."""

    source: str
    text: str
    """The part of the paragraph with the reference."""
    range: Range

    def is_found(self, find: Find) -> bool:
        source, text = find.paragraph
        return self.source == source and self.text in text and _overlap(self.range, find.range)


def cases() -> list[dict[str, Any]]:
    """Texts, what is searched for, and whether the search should find the text."""
    return _lines(CASES)


def passes(reader: Reader, case: dict[str, Any]) -> bool:
    """Whether what is searched for is found in the text, or is not found if it should not be."""
    in_field = case["where"] == "scripture_refs"
    found = reader(Text(case["text"], in_field, case.get("language", "en")))
    searched = find_references(case["search"])
    assert searched, case["search"]
    return case["found"] is any(_overlap(verses, other) for verses in found for other in searched)


def reads(reader: Reader, abbreviation: str, book: int) -> bool:
    """Whether the abbreviation with the numbers of a verse is read as this verse and nothing else."""
    verse = book * BOOK_SIZE + CHAPTER_SIZE + 1
    return reader(Text(f"{abbreviation} 1:1", in_field=True)) == {(verse, verse)}


def true_references() -> list[TrueReference]:
    return [
        TrueReference(row["source"], row["text"], verses)
        for row in _lines(TRUE_REFERENCES)
        for verses in find_references(row["reference"])
    ]


def false_finds(
    reader: Reader, paragraphs: Iterable[Paragraph], known: list[TrueReference]
) -> Iterator[Find]:
    """What the reader finds in prose that is not among the known references."""
    for paragraph in paragraphs:
        for verses in sorted(reader(Text(paragraph.text))):
            find = Find(verses, paragraph)
            if not any(reference.is_found(find) for reference in known):
                yield find


def words(paragraphs: Iterable[Paragraph]) -> int:
    return sum(len(paragraph.text.split()) for paragraph in paragraphs)


def _overlap(one: Range, other: Range) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
