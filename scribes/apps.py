from __future__ import annotations

from django.apps import AppConfig


class ScribesConfig(AppConfig):
    name = "scribes"

    def ready(self) -> None:
        import scribes.lookups
        import scribes.server_checks
        import scribes.timestamps  # noqa: F401 each registers what it defines
