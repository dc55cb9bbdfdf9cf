"""The project package: settings, URLs, users, and what belongs to no single domain."""

from __future__ import annotations

from celery_app import app as celery_app

__all__ = ["celery_app"]
