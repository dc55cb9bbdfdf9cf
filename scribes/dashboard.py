"""The admin's front page: how Scribes is doing, in numbers and small charts.

Every app registers panels as it gets ready. Each is read when the page is asked for; what cannot be
read, or not quickly, is unknown, and the panel says why.
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
from scribes import health, heartbeats, server_checks
from scribes.checks import Report
from scribes.models import Heartbeat

REFRESH_SECONDS = 3
# Of PostgreSQL's time, for one statement of a panel.
LIMIT_MILLISECONDS = 300
HOURS = 24


class Figure(NamedTuple):
    name: str
    value: object
    is_fault: bool = False
    """It asks for somebody's attention."""
    share: float | None = None
    """Of a whole, from 0 to 1: it is drawn, too."""

    @property
    def percent(self) -> int | None:
        return None if self.share is None else round(100 * min(1, max(0, self.share)))


class Hour(NamedTuple):
    start: datetime
    good: int
    bad: int


class Panel(NamedTuple):
    title: str
    figures: Sequence[Figure] = ()
    hours: Sequence[Hour] = ()
    unknown: str = ""
    """Why nothing is known."""
    note: str = ""

    @property
    def highest(self) -> int:
        return max((hour.good + hour.bad for hour in self.hours), default=0)

    @property
    def bars(self) -> list[dict[str, Any]]:
        """Hours with their heights, in per cent of the chart's."""
        scale = 100 / max(1, self.highest)
        return [
            {"hour": hour, "good": hour.good * scale, "bad": hour.bad * scale}
            for hour in self.hours
        ]


class Source(NamedTuple):
    title: str
    read: Callable[[], Panel]
    needs: str
    """The check without which there is nothing to read."""


SOURCES: list[Source] = []


def register(
    title: str, *, needs: str = "PostgreSQL"
) -> Callable[[Callable[[], Panel]], Callable[[], Panel]]:
    """A decorator of a function that reads a panel. It may raise DatabaseError and RedisError."""

    def add(read: Callable[[], Panel]) -> Callable[[], Panel]:
        SOURCES.append(Source(title, read, needs))
        return read

    return add


def latest_hours(
    counts: Iterable[tuple[datetime, int, int]], now: datetime, hours: int = HOURS
) -> list[Hour]:
    """(start of an hour, good, bad) of some hours -> all of the latest, the present one last."""
    known = {start: Hour(start, good, bad) for start, good, bad in counts}
    this = now.replace(minute=0, second=0, microsecond=0)
    starts = (this - timedelta(hours=n) for n in reversed(range(hours)))
    return [known.get(start, Hour(start, 0, 0)) for start in starts]


def panels(reports: Iterable[Report]) -> list[Panel]:
    checks = {report.name: report for report in reports}
    return [_panel(source, checks.get(source.needs)) for source in SOURCES]


def _panel(source: Source, report: Report | None) -> Panel:
    # A server that hangs would keep each of them for its whole time-out.
    if report and report.state != "ok":
        return Panel(source.title, unknown=report.what)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {LIMIT_MILLISECONDS}")
            return source.read()._replace(title=source.title)
    except (DatabaseError, RedisError) as error:
        return Panel(source.title, unknown=f"{type(error).__name__}: {error}")


@register("Processes")
def processes() -> Panel:
    """A process counts while its heartbeats are not overdue."""
    ages = heartbeats.ages()
    alive = dict(_alive().values_list("name").annotate(Count("pk")))
    names = [heartbeats.BEAT, *map(heartbeats.of_queue, QUEUES)]
    workers = _alive().exclude(name=heartbeats.BEAT).aggregate(n=Count("process", distinct=True))
    return Panel(
        "",
        [
            Figure("worker processes alive", workers["n"], is_fault=not workers["n"]),
            *(Figure(name, _last(ages.get(name)), is_fault=name not in alive) for name in names),
        ],
        note=f"Beat sends each queue a heartbeat every {settings.HEARTBEAT_SECONDS} s.",
    )


def _alive() -> Any:
    overdue = timedelta(seconds=server_checks.MAX_MISSING * settings.HEARTBEAT_SECONDS)
    return Heartbeat.objects.filter(at__gt=Now() - overdue)


def _last(age: float | None) -> str:
    return "never seen" if age is None else f"{age:.0f} s ago"


@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """The front page, with what doctor would call vital faults on top."""
    reports = health.vital()
    context = {
        "panels": panels(reports),
        "faults": [report for report in reports if report.is_fault],
        "live": REFRESH_SECONDS,
    }
    return admin.site.index(request, context)
