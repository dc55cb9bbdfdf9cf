from __future__ import annotations

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import jobs.checks
        import jobs.metrics
        import jobs.panels  # noqa: F401 registers them, too
