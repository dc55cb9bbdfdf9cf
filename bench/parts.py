"""Which parts there are, and how they are run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

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


def measure(names: list[str]) -> int:
    """Measure these parts, or all; 1 where a target was missed, and 0 otherwise."""
    # Here is one process: the model may have all cores, as a worker of one process has them.
    current_app.conf.worker_concurrency = 1
    load, missed = machine.load(), False
    for name in names or PARTS:
        with fresh_database():
            lines = [report.show(line) for line in import_module(f"bench.{name}").run()]
        report.keep(name, lines, load)
        missed |= not all(line.met for line in lines)
    report.write()
    return int(missed)


@contextmanager
def fresh_database() -> Iterator[None]:
    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        yield
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)
