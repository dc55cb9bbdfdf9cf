"""The rows of the table, which is printed as the cases end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tests.load.deployment import Scribes, running_scribes

HEAD = ("case", "alone", "under load", "ratio", "target", "met")


class Row(NamedTuple):
    title: str
    alone: str
    under_load: str
    ratio: float
    target: float
    """The ratio must not be larger."""

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.target

    def cells(self) -> tuple[str, ...]:
        met = "yes" if self.is_met else "**no**"
        return (
            *(self.title, self.alone, self.under_load),
            *(f"{self.ratio:.2f}", f"<= {self.target:.2f}", met),
        )


class Case(NamedTuple):
    measure: Callable[[Scribes], Iterator[Row]]
    variables: dict[str, str] = {}
    """Environment variables of the processes."""


def slower(title: str, alone: float, under_load: float, target: float) -> Row:
    """A row about seconds."""
    return Row(title, seconds(alone), seconds(under_load), under_load / alone, target)


def seconds(time: float) -> str:
    return f"{time:.2f} s" if time >= 1 else f"{time * 1000:.0f} ms"


def run(cases: Iterable[Case]) -> int:
    """Run the cases and print the table; 1 if a target is missed."""
    _print(HEAD)
    _print(("---",) * len(HEAD))
    missed = 0
    for case in cases:
        with running_scribes(**case.variables) as scribes:
            for row in case.measure(scribes):
                _print(row.cells())
                missed += not row.is_met
    return 1 if missed else 0


def _print(cells: Iterable[str]) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()
