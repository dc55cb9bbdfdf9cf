"""`pytest tests/chaos` runs a short version; `--long`, which is `make chaos`, the whole of it."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.harness import QUICK, Account, Broker, House
from tests.counting import create_table

ACCOUNT = "account"


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """rounds(short, long): how often to do it in this run."""
    long = request.config.getoption("--long")
    return lambda short, full: full if long else short


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    """A line of the table, with the test's own name. It is told to whoever writes the table, which
    may be another process."""
    account = Account(request.node.name.removeprefix("test_").replace("_", " "))
    yield account
    request.node.user_properties.append((ACCOUNT, account.row()))


@pytest.fixture
def broker(transactional_db: None, tmp_path: Path) -> Iterator[Broker]:
    create_table()
    broker = Broker(tmp_path)
    yield broker
    broker.close()


@pytest.fixture
def house(broker: Broker, tmp_path: Path) -> Iterator[House]:
    """With leases and reconciler in seconds."""
    house = House(tmp_path, broker, QUICK)
    yield house
    house.close()


@pytest.fixture
def house_as_shipped(broker: Broker, tmp_path: Path) -> Iterator[House]:
    """With the default settings."""
    house = House(tmp_path, broker, {"WORKER_CONCURRENCY": "2"})
    yield house
    house.close()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; only with --long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = itertools.chain.from_iterable(terminalreporter.stats.values())
    told = (getattr(report, "user_properties", ()) for report in reports)
    accounts = [row for properties in told for name, row in properties if name == ACCOUNT]
    if not accounts:
        return
    head = ("what", "rounds", "faults", "recovery p50", "max", "lost", "duplicated")
    rows = [head, tuple("---" for _ in head), *accounts]
    terminalreporter.section("chaos")
    terminalreporter.write_line(
        f"{platform.processor() or platform.machine()}, {platform.system()}"
    )
    for row in rows:
        terminalreporter.write_line("| " + " | ".join(row) + " |")
