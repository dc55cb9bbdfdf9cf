from __future__ import annotations

from django.apps import AppConfig


class ScribesConfig(AppConfig):
    name = "scribes"

    def ready(self) -> None:
        """Import the modules that register something: lookups, probes, and signal handlers."""
        import scribes.api.schema
        import scribes.db.lookups
        import scribes.monitoring.heartbeats
        import scribes.monitoring.probes.all  # noqa: F401
