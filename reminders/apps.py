from __future__ import annotations

from django.apps import AppConfig


class RemindersConfig(AppConfig):
    name = "reminders"

    def ready(self) -> None:
        import reminders.checks
        import reminders.metrics
        import reminders.panels  # noqa: F401 registers them, too
