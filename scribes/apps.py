from __future__ import annotations

from django.apps import AppConfig


class ScribesConfig(AppConfig):
    name = "scribes"

    def ready(self) -> None:
        import scribes.lookups
        import scribes.server_checks  # noqa: F401 both register what they define
