from __future__ import annotations

from django.apps import AppConfig


class ScribesConfig(AppConfig):
    name = "scribes"
