from __future__ import annotations

from django.apps import AppConfig


class RemindersConfig(AppConfig):
    name = "reminders"

    def ready(self) -> None:
        """Import the modules that register something: metrics, panels and probes."""
        import reminders.metrics
        import reminders.panels
        import reminders.probes  # noqa: F401
