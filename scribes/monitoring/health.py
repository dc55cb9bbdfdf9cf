"""/health/live and /health/ready, for load balancers and alarms."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from scribes.monitoring.probes.critical import critical_reports
from scribes.monitoring.probes.registry import Report


@never_cache
@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """Answer 200. If this process does not answer, restart it."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    """Answer 503 while a critical probe fails, with the names of the failed probes. Staff get details.

    Workers and beat are critical, too. A load balancer that should take out only web processes
    that do not answer must use /health/live.
    """
    reports = critical_reports()
    faults = [report for report in reports if report.is_fault]
    body: dict[str, Any] = {
        "status": "fault" if faults else "ok",
        "faults": [report.name for report in faults],
    }
    if _is_staff(request, reports):
        body["probes"] = [report._asdict() for report in reports]
    return JsonResponse(body, status=503 if faults else 200)


def _is_staff(request: HttpRequest, reports: list[Report]) -> bool:
    """False while the database that knows the users does not work."""
    usable = {report.name for report in reports if report.state == "ok"}
    return {"PostgreSQL", "migrations"} <= usable and request.user.is_staff


urlpatterns = [
    path("live", live, name="health-live"),
    path("ready", ready, name="health-ready"),
]
