"""`make mutants`: breaks each guard on purpose, and checks that a test notices.

guards.toml lists the mutants. Each replaces one piece of code in a copy of the tree, and names the
tests that must fail then. A mutant that no test notices survives: write a test that fails, or argue
in its `argued` why it does no harm. The exit code is 1 if a mutant survives without an argument.

`python -m tests.mutants WORD…` tries only the mutants whose file or name contains one of the words.
It needs servers, as `make mutants` starts them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
TREE = ROOT / ".data" / "mutants" / "tree"
GUARDS = Path(__file__).with_name("guards.toml")
# A mutant that makes a test hang has been noticed.
TIMEOUT_SECONDS = 120
# pytest's exit code when tests failed. Others mean that the tests could not run.
TESTS_FAILED = 1


class Mutant(NamedTuple):
    name: str
    file: str
    before: str
    after: str
    tests: list[str]
    argued: str = ""


def mutants(words: list[str]) -> list[Mutant]:
    listed = [Mutant(**entry) for entry in tomllib.loads(GUARDS.read_text())["mutant"]]
    return [m for m in listed if not words or any(w in m.file or w in m.name for w in words)]


def copy_tree() -> None:
    """Copy what git tracks or would track."""
    shutil.rmtree(TREE, ignore_errors=True)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, TREE / name)


def try_out(mutant: Mutant) -> str:
    """killed, survived or argued; broken if the code or the tests are no longer as listed."""
    file = TREE / mutant.file
    original = file.read_text()
    if original.count(mutant.before) != 1:
        return "broken"
    file.write_text(original.replace(mutant.before, mutant.after))
    try:
        status = run_tests(mutant.tests)
    finally:
        file.write_text(original)
    if status == 0:
        return "argued" if mutant.argued else "survived"
    return "killed" if status == TESTS_FAILED else "broken"


def run_tests(tests: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(
            command, cwd=TREE, capture_output=True, timeout=TIMEOUT_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        return TESTS_FAILED


def outcomes(listed: list[Mutant]) -> Iterator[str]:
    for mutant in listed:
        started = time.monotonic()
        outcome = try_out(mutant)
        seconds = time.monotonic() - started
        print(f"{outcome:9} {seconds:4.0f} s  {mutant.file}: {mutant.name}", flush=True)  # noqa: T201
        yield outcome


def main() -> None:
    copy_tree()
    listed = mutants(sys.argv[1:])
    found = list(outcomes(listed))
    counts = ", ".join(f"{found.count(kind)} {kind}" for kind in dict.fromkeys(found))
    print(f"{len(listed)} mutants: {counts or 'none'}")  # noqa: T201
    sys.exit(1 if {"survived", "broken"} & set(found) else 0)


if __name__ == "__main__":
    main()
