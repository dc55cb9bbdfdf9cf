from __future__ import annotations

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the modules that register something."""
        import jobs.metrics
        import jobs.panels
        import jobs.probes  # noqa: F401
