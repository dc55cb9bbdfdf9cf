"""The readers of references that are compared, each as a function from a text to ranges of verses.

The peers are used as their documentation says.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pythonbible

from notes.scripture.book_names import BOOKS, names
from notes.scripture.references import parse_note
from notes.scripture.verse_range import BOOK_SIZE, CHAPTER_SIZE

SCRIPTS = Path(__file__).parents[3] / "bench/peers/scripture"

# The first and the last verse, both included.
Range = tuple[int, int]


class Text(NamedTuple):
    text: str
    in_field: bool = False
    """Whether it is in a note's field for references, and not in its text."""
    language: str = "en"


Reader = Callable[[Text], set[Range]]


def scribes(text: Text) -> set[Range]:
    return set(parse_note(*((text.text, "") if text.in_field else ("", text.text))).references)


def python_peer(text: Text) -> set[Range]:
    """What pythonbible finds in the 66 books that all readers know.

    It raises an error for some texts, and then finds nothing in them.
    """
    try:
        found = pythonbible.get_references(text.text)
        verses = [pythonbible.convert_reference_to_verse_ids(reference) for reference in found]
    except (ValueError, IndexError, pythonbible.InvalidChapterError):
        return set()
    return {(ids[0], ids[-1]) for ids in verses if ids and ids[0] // BOOK_SIZE <= len(BOOKS)}


@contextmanager
def javascript_peer() -> Iterator[Reader]:
    """What bible-passage-reference-parser finds, in a process of Node.js."""
    command = ["node", str(SCRIPTS / "parse.mjs")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, encoding="utf-8") as process:
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None

        def read(text: Text) -> set[Range]:
            print(json.dumps(_request(text)), file=requests, flush=True)
            return {_range(found["osis"]) for found in json.loads(answers.readline())}

        yield read


def why_no_javascript_peer() -> str:
    """A sentence that says what is missing, or nothing."""
    if shutil.which("node") is None:
        return "bible-passage-reference-parser is not measured: Node.js is not installed."
    if not (SCRIPTS / "node_modules").exists():
        return "bible-passage-reference-parser is not measured: `make quality` installs it."
    return ""


def _request(text: Text) -> dict[str, Any]:
    comma = names()[text.language].separator == ","
    return {
        "text": text.text,
        "language": text.language.partition("-")[0],  # both scripts of Chinese are one
        "punctuation": "eu" if comma else "us",
        "query": text.in_field,
    }


def _range(osis: str) -> Range:
    """The range that is written as "John.3.16-John.3.18" or "John.3.16"."""
    start, _, end = osis.partition("-")
    return _verse(start), _verse(end or start)


def _verse(osis: str) -> int:
    book, chapter, verse = osis.split(".")
    number = BOOKS.index(book) + 1
    return number * BOOK_SIZE + int(chapter) * CHAPTER_SIZE + int(verse)
