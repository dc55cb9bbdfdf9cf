"""Are the names of the variables right?"""

from __future__ import annotations

import difflib
import os
import re

from django.conf import settings

from scribes.monitoring.probes.registry import ProbeFailed, register

# How much a name must look like a known one (0 to 1) to be reported as a typo, and to be suggested.
TYPO_SIMILARITY = 0.85
SUGGESTION_SIMILARITY = 0.6


@register("environment")
def environment() -> str:
    known = sorted(settings.ENVIRONMENT_NAMES)
    in_file = [name for name in _names_in(settings.ENV_FILE) if name not in known]
    # A system's environment has many other variables: only likely typos count.
    typos = [n for n in os.environ if n not in known and _similar(n, known, TYPO_SIMILARITY)]
    if unknown := sorted({*in_file, *typos}):
        raise ProbeFailed(
            "; ".join(
                f"{name} is not a variable of Scribes{_hint(name, known)}" for name in unknown
            ),
            settings.ENV_FILE if in_file else "the environment of this process",
            "correct the name: .env.example lists all variables",
        )
    return f"{len(known)} variables are known, no typos found"


def _names_in(file: str) -> list[str]:
    try:
        with open(file) as lines:  # noqa: PTH123 the name may be empty
            found = (re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=", line) for line in lines)
            return [match[1] for match in found if match]
    except OSError:
        return []


def _similar(name: str, known: list[str], cutoff: float) -> list[str]:
    return difflib.get_close_matches(name.upper(), known, n=1, cutoff=cutoff)


def _hint(name: str, known: list[str]) -> str:
    similar = _similar(name, known, SUGGESTION_SIMILARITY)
    return f"; did you mean {similar[0]}?" if similar else ""
