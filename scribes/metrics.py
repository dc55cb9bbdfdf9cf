"""/metrics, for Prometheus: numbers from the database and the broker at the time of the scrape.

Every app registers a function that yields its families, so all web processes tell the same. What
ended long ago is pruned from the tables, so numbers of rows go down as well as up: they are gauges.
Only what the web processes measure themselves (see scribes.wsgi) is added up over the processes
of one machine.

django-prometheus is not used: it counts requests and queries in each process, and has a view without
a token; what is asked here are rows and queues, and for those prometheus-client's Collector is all.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from redis import RedisError

from scribes import health, heartbeats
from scribes.measured import folder as measured_by_web

logger = logging.getLogger(__name__)


class Families(NamedTuple):
    read: Callable[[], Iterable[Metric]]
    needs: str
    """The check without which there is nothing to read."""


FAMILIES: list[Families] = []

Read = Callable[[], Iterable[Metric]]


def register(*, needs: str = "PostgreSQL") -> Callable[[Read], Read]:
    """A decorator. Where they cannot be read, the page has all others."""

    def add(read: Read) -> Read:
        FAMILIES.append(Families(read, needs))
        return read

    return add


def gauge(
    name: str, help: str, labels: Iterable[str], rows: Iterable[tuple[Iterable[object], Any]]
) -> GaugeMetricFamily:
    """A family of (values of the labels, number); None is 0."""
    family = GaugeMetricFamily(name, help, labels=list(labels))
    for values, number in rows:
        family.add_metric([str(value) for value in values], float(number or 0))
    return family


class _Registered(Collector):
    def collect(self) -> Iterator[Metric]:
        checks = {report.name: report.state == "ok" for report in health.vital()}
        rows = (([name], ok) for name, ok in checks.items())
        yield gauge("scribes_check", "1: the vital check is well.", ["check"], rows)
        for families in FAMILIES:
            # A server that hangs would keep each of them for its whole time-out.
            if checks.get(families.needs):
                yield from _readable(families)


def _readable(families: Families) -> list[Metric]:
    try:
        return list(families.read())
    except (DatabaseError, RedisError) as error:
        logger.warning("%s cannot be read: %s", families.read.__qualname__, error)
        return []


@register()
def heartbeat_age() -> Iterator[Metric]:
    rows = (([name], age) for name, age in heartbeats.ages().items())
    help = "Since beat, a worker on a queue, or a sweep last did what it is there for."
    yield gauge("scribes_heartbeat_age_seconds", help, ["name"], rows)


# --- The page -------------------------------------------------------------------------------


@never_cache
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """For whoever has METRICS_TOKEN: `Authorization: Bearer {token}`."""
    # Workers and commands register what they count, too, and need nothing else of the API's.
    from scribes.api import problem

    expected = f"Bearer {settings.METRICS_TOKEN}".encode()
    given = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(given, expected):
        response = problem(401, "METRICS_TOKEN is missing or wrong.")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    registry = CollectorRegistry()
    registry.register(_Registered())
    if measured_by_web().is_dir():
        MultiProcessCollector(registry, str(measured_by_web()))  # type: ignore[no-untyped-call]
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
