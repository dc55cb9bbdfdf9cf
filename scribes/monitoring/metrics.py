"""Metrics for Prometheus, read from the database and the broker when they are scraped.

Each app registers functions that yield metric families, so that all web processes show the same.
Most are gauges and not counters: old rows are pruned, so the number of rows also goes down. Only what
web processes measure themselves is added up over the processes of one machine (see scribes.wsgi).

django-prometheus is not used: it counts requests and queries in each process, and has no view that
asks for a token. Our metrics are about rows and queues, and prometheus-client's Collector is enough.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from django.db import DatabaseError
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis import RedisError

from scribes.messaging import unreadable
from scribes.monitoring import heartbeats
from scribes.monitoring.probes.critical import critical_reports

logger = logging.getLogger(__name__)

Read = Callable[[], Iterable[Metric]]


class Source(NamedTuple):
    read: Read
    needs: str
    """The probe that must succeed before `read` is called."""


SOURCES: list[Source] = []


def register(*, needs: str = "PostgreSQL") -> Callable[[Read], Read]:
    """Decorate a function that yields metric families. If it fails, only its families are missing."""

    def add(read: Read) -> Read:
        SOURCES.append(Source(read, needs))
        return read

    return add


def gauge(
    name: str, help: str, labels: Iterable[str], rows: Iterable[tuple[Iterable[object], Any]]
) -> GaugeMetricFamily:
    """A family with one sample per row of (label values, number). None counts as 0."""
    family = GaugeMetricFamily(name, help, labels=list(labels))
    for values, number in rows:
        family.add_metric([str(value) for value in values], float(number or 0))
    return family


class RegisteredMetrics(Collector):
    def collect(self) -> Iterator[Metric]:
        succeeded = {report.name: report.state == "ok" for report in critical_reports()}
        rows = (([name], ok) for name, ok in succeeded.items())
        yield gauge("scribes_probe", "1 if the critical probe succeeds.", ["probe"], rows)
        for source in SOURCES:
            # Each read of a server that hangs would wait for its whole time-out.
            if succeeded.get(source.needs):
                yield from _read(source)


def _read(source: Source) -> list[Metric]:
    try:
        return list(source.read())
    except (DatabaseError, RedisError) as error:
        logger.warning("%s could not be read: %s", source.read.__qualname__, error)
        return []


@register()
def heartbeat_age() -> Iterator[Metric]:
    rows = (([name], age) for name, age in heartbeats.ages().items())
    help = "Seconds since the latest heartbeat of beat, of a worker on a queue, or of the sweep."
    yield gauge("scribes_heartbeat_age_seconds", help, ["name"], rows)


@register(needs="Redis")
def unreadable_messages() -> Iterator[Metric]:
    help = "Number of messages that workers dropped because they cannot be read."
    yield gauge("scribes_unreadable_messages", help, [], [((), unreadable.count())])
