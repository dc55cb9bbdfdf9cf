"""`pytest tests/chaos` runs a short version of these tests; `make chaos`, with --long, all of it."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import current_app
from django.conf import settings

from scribes.messaging import broker as messaging_broker
from tests.chaos.broker import Broker
from tests.chaos.deployment import AS_SHIPPED, QUICK, Deployment
from tests.chaos.fault_report import HEAD, FaultReport
from tests.helpers.counting import create_table

REPORT = "fault_report"


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """rounds(short, long): the number for this run."""
    is_long = request.config.getoption("--long")
    return lambda short, long: long if is_long else short


@pytest.fixture
def fault_report(request: pytest.FixtureRequest) -> Iterator[FaultReport]:
    """The test's row in the table. It is passed on to the process that prints the table, which may be
    another one."""
    report = FaultReport(title_of(request.node.name))
    yield report
    request.node.user_properties.append((REPORT, report.row()))


def title_of(test: str) -> str:
    name, _, parameter = test.removeprefix("test_").partition("[")
    return " ".join([*name.split("_"), parameter.rstrip("]")]).strip()


@pytest.fixture
def broker(transactional_db: None, tmp_path: Path) -> Iterator[Broker]:
    create_table()
    broker = Broker(tmp_path)
    yield broker
    broker.close()


@pytest.fixture
def deployment(broker: Broker, tmp_path: Path) -> Iterator[Deployment]:
    """Its leases and its reconciler take seconds."""
    deployment = Deployment(tmp_path, broker, QUICK)
    yield deployment
    deployment.close()


@pytest.fixture
def deployment_as_shipped(broker: Broker, tmp_path: Path) -> Iterator[Deployment]:
    """It has the default settings."""
    deployment = Deployment(tmp_path, broker, AS_SHIPPED)
    yield deployment
    deployment.close()


@pytest.fixture
def publishing(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process publishes to the test's broker, as a web process would."""
    monkeypatch.setattr(settings, "REDIS_URL", broker.url)
    celery_url = broker.url.replace("unix://", "redis+socket://")
    monkeypatch.setitem(current_app.conf, "broker_url", celery_url)
    forget_connections()
    yield
    forget_connections()


def forget_connections() -> None:
    messaging_broker.producers.cache_clear()
    messaging_broker.redis_client.cache_clear()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; only with --long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = itertools.chain.from_iterable(terminalreporter.stats.values())
    properties = [getattr(report, "user_properties", ()) for report in reports]
    rows = [row for pairs in properties for name, row in pairs if name == REPORT]
    if not rows:
        return
    terminalreporter.section("chaos")
    terminalreporter.write_line(
        f"{platform.processor() or platform.machine()}, {platform.system()}"
    )
    for row in [HEAD, tuple("---" for _ in HEAD), *rows]:
        terminalreporter.write_line("| " + " | ".join(row) + " |")
