"""Prints how well references to scripture are read, beside two peers, as the table in docs/search.md.

`make quality` runs it. `--finds READER` prints instead what one reader finds in prose by mistake, one
line of JSON each. Somebody has to judge whether it is a mistake: if not, it belongs in
true_references.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from tests.quality.scripture.measures import (
    ABBREVIATIONS,
    cases,
    false_finds,
    passes,
    reads,
    true_references,
    words,
)
from tests.quality.scripture.prose import Paragraph, king_james, missing_prose, prose
from tests.quality.scripture.readers import (
    Reader,
    javascript_peer,
    python_peer,
    scribes,
    why_no_javascript_peer,
)

JAVASCRIPT_PEER = "bible-passage-reference-parser"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.scripture", description=__doc__)
    parser.add_argument("--finds", metavar="READER", help="Scribes, or one of its peers")
    options = parser.parse_args()
    for sentence in filter(None, [*missing_prose(), why_no_javascript_peer()]):
        print(sentence, file=sys.stderr)  # noqa: T201
    with available_readers() as readers:
        if options.finds:
            print_finds(readers[options.finds])
        else:
            print_table(readers)


@contextmanager
def available_readers() -> Iterator[dict[str, Reader]]:
    """Scribes and the peers that are installed, by name."""
    readers: dict[str, Reader] = {"Scribes": scribes, "pythonbible": python_peer}
    if why_no_javascript_peer():
        yield readers
    else:
        with javascript_peer() as reader:
            yield readers | {JAVASCRIPT_PEER: reader}


def print_table(readers: Mapping[str, Reader]) -> None:
    _print_row("scripture", readers)
    _print_row("---", ["---"] * len(readers))
    _print_row(
        f"abbreviations read, of {len(ABBREVIATIONS)}",
        (sum(reads(reader, *pair) for pair in ABBREVIATIONS) for reader in readers.values()),
    )
    _print_row(
        f"cases passed, of {len(cases())}",
        (sum(passes(reader, case) for case in cases()) for reader in readers.values()),
    )
    _print_false_finds("prose", list(prose()), readers)
    _print_false_finds("the King James Bible", list(king_james()), readers)


def print_finds(reader: Reader) -> None:
    for find in false_finds(reader, prose(), true_references()):
        print(json.dumps([*find.range, *find.paragraph], ensure_ascii=False))  # noqa: T201


def _print_false_finds(
    title: str, paragraphs: list[Paragraph], readers: Mapping[str, Reader]
) -> None:
    """The row with the false finds in a million words, if there are any words."""
    if count := words(paragraphs):
        known = true_references()
        _print_row(
            f"false finds in a million words of {title} (of {count:,} words)",
            (
                f"{len(list(false_finds(reader, paragraphs, known))) / count * 1e6:.1f}"
                for reader in readers.values()
            ),
        )


def _print_row(title: str, cells: Iterable[object]) -> None:
    print("| " + " | ".join([title, *map(str, cells)]) + " |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
