"""The admin's front page: how Scribes is doing, in numbers and small charts.

Each app registers its panels when it gets ready. They are read when the page is requested. A panel
that cannot be read, or not fast enough, says so instead of showing numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib import admin
from django.db import DatabaseError, connection, transaction
from django.db.models import Count
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from redis import RedisError

from celery_app import QUEUES
from scribes.models import Heartbeat
from scribes.monitoring import heartbeats
from scribes.monitoring.probes.critical import critical_reports
from scribes.monitoring.probes.processes import overdue_seconds
from scribes.monitoring.probes.registry import Report

REFRESH_SECONDS = 3
# For one statement of a panel in PostgreSQL.
STATEMENT_TIMEOUT_MILLISECONDS = 300
HOURS = 24


class Figure(NamedTuple):
    name: str
    value: object
    is_problem: bool = False
    """Highlighted: an operator should look at it."""
    share: float | None = None
    """From 0 to 1; drawn as a bar."""

    @property
    def percent(self) -> int | None:
        return None if self.share is None else round(100 * min(1, max(0, self.share)))


class Hour(NamedTuple):
    start: datetime
    succeeded: int
    failed: int


class Panel(NamedTuple):
    title: str
    figures: Sequence[Figure] = ()
    hours: Sequence[Hour] = ()
    unknown: str = ""
    """Why the panel could not be read."""
    note: str = ""

    @property
    def highest(self) -> int:
        return max((hour.succeeded + hour.failed for hour in self.hours), default=0)

    @property
    def bars(self) -> list[dict[str, Any]]:
        """The hours with the heights of their bars, in per cent of the chart."""
        scale = 100 / max(1, self.highest)
        return [
            {
                "hour": hour,
                "succeeded": hour.succeeded * scale,
                "failed": hour.failed * scale,
            }
            for hour in self.hours
        ]


class Source(NamedTuple):
    title: str
    read: Callable[[], Panel]
    needs: str
    """The probe that must succeed before `read` is called."""


SOURCES: list[Source] = []


def register(
    title: str, *, needs: str = "PostgreSQL"
) -> Callable[[Callable[[], Panel]], Callable[[], Panel]]:
    """Decorate a function that reads a panel. It may raise DatabaseError and RedisError."""

    def add(read: Callable[[], Panel]) -> Callable[[], Panel]:
        SOURCES.append(Source(title, read, needs))
        return read

    return add


def latest_hours(
    counts: Iterable[tuple[datetime, int, int]], now: datetime, hours: int = HOURS
) -> list[Hour]:
    """Counts of (start of an hour, succeeded, failed) -> the latest hours without gaps, oldest first."""
    known = {start: Hour(start, succeeded, failed) for start, succeeded, failed in counts}
    this = now.replace(minute=0, second=0, microsecond=0)
    starts = (this - timedelta(hours=n) for n in reversed(range(hours)))
    return [known.get(start, Hour(start, 0, 0)) for start in starts]


def panels(reports: Iterable[Report]) -> list[Panel]:
    by_name = {report.name: report for report in reports}
    return [_panel(source, by_name.get(source.needs)) for source in SOURCES]


def _panel(source: Source, report: Report | None) -> Panel:
    # Each read of a server that hangs would wait for its whole time-out.
    if report and report.state != "ok":
        return Panel(source.title, unknown=report.message)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MILLISECONDS}")
            return source.read()._replace(title=source.title)
    except (DatabaseError, RedisError) as error:
        return Panel(source.title, unknown=f"{type(error).__name__}: {error}")


@register("Processes")
def processes() -> Panel:
    """A process counts as alive while its heartbeat is not overdue."""
    ages = heartbeats.ages()
    alive = dict(_alive().values_list("name").annotate(Count("pk")))
    names = [heartbeats.BEAT, *map(heartbeats.of_queue, QUEUES)]
    workers = _alive().exclude(name=heartbeats.BEAT).aggregate(n=Count("process", distinct=True))
    return Panel(
        "",
        [
            Figure("worker processes alive", workers["n"], is_problem=not workers["n"]),
            *(Figure(name, _last(ages.get(name)), is_problem=name not in alive) for name in names),
        ],
        note="Time since the latest heartbeat. Beat sends each queue one every "
        f"{settings.HEARTBEAT_SECONDS} s.",
    )


def _alive() -> Any:
    return Heartbeat.objects.filter(at__gt=Now() - timedelta(seconds=overdue_seconds()))


def _last(age: float | None) -> str:
    return "never seen" if age is None else f"{age:.0f} s ago"


@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """The front page, with the faults that critical probes found at the top."""
    reports = critical_reports()
    context = {
        "panels": panels(reports),
        "faults": [report for report in reports if report.is_fault],
        "live": REFRESH_SECONDS,
    }
    return admin.site.index(request, context)
