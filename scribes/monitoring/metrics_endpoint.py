from __future__ import annotations

import hmac

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from scribes.api.errors import problem
from scribes.monitoring import prometheus_multiprocess
from scribes.monitoring.metrics import RegisteredMetrics


@never_cache
@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """/metrics, for clients that send `Authorization: Bearer {METRICS_TOKEN}`."""
    expected = f"Bearer {settings.METRICS_TOKEN}".encode()
    given = request.headers.get("Authorization", "").encode()
    if not hmac.compare_digest(given, expected):
        response = problem(401, "METRICS_TOKEN is missing or wrong.")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    registry = CollectorRegistry()
    registry.register(RegisteredMetrics())
    shared = prometheus_multiprocess.folder()
    if shared.is_dir():
        MultiProcessCollector(registry, str(shared))  # type: ignore[no-untyped-call]
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
