"""The parts of the benchmarks, and how they are run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from celery import current_app
from django.db import connection

from bench import machine, report

# A part is a module with `run() -> Iterator[Line]`.
PARTS = (
    "encode",
    "writing",
    "search",
    "api",
    "regeneration",
    "latency",
    "reminders",
    "startup",
    "memory",
)


def measure(parts: Sequence[str], folder: Path) -> int:
    """Measure these parts, each with an empty database; 1 if a target was missed, else 0."""
    # The model gets all cores in this process, as in a worker with one process.
    current_app.conf.worker_concurrency = 1
    load, all_met = machine.load(), True
    for name in parts:
        with empty_database():
            lines = [report.show(line) for line in import_module(f"bench.{name}").run()]
        report.save(folder, name, lines, load)
        all_met = all_met and all(line.is_met for line in lines)
    report.write_page(folder)
    return 0 if all_met else 1


@contextmanager
def empty_database() -> Iterator[None]:
    """A new database beside the configured one, deleted at the end."""
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        yield
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)
