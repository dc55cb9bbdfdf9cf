"""/health/live and /health/ready, for whatever watches Scribes from outside."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from scribes import checks
from scribes.checks import Report

# All of /health/ready is to be answered within a second.
LIMIT_SECONDS = 0.7
# Many callers cost no more than one.
KEEP_SECONDS = 1.0

_lock = Lock()
_latest: tuple[float, list[Report]] | None = None


@never_cache
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """This process answers; restart it if it does not."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """503 while anything vital is at fault, with the names; what exactly is for staff to read.

    Among the vital are the workers and beat. For a load balancer that is to take this process out
    only if it does not answer itself, there is /health/live.
    """
    reports = vital()
    faults = [report for report in reports if report.is_fault]
    body: dict[str, Any] = {
        "status": "fault" if faults else "ok",
        "faults": [report.name for report in faults],
    }
    if _is_staff(request, reports):
        body["checks"] = [report._asdict() for report in reports]
    return JsonResponse(body, status=503 if faults else 200)


def vital() -> list[Report]:
    global _latest
    with _lock:
        if _latest is None or time.monotonic() - _latest[0] > KEEP_SECONDS:
            reports = checks.run([check for check in checks.CHECKS if check.vital], LIMIT_SECONDS)
            _latest = time.monotonic(), reports
        return _latest[1]


def _is_staff(request: HttpRequest, reports: list[Report]) -> bool:
    """Nobody is, while the database that would say so is at fault."""
    usable = {report.name for report in reports if report.state == "ok"}
    return {"PostgreSQL", "migrations"} <= usable and request.user.is_staff


urlpatterns = [
    path("live", live, name="health-live"),
    path("ready", ready, name="health-ready"),
]
