"""What must be done before a web process takes requests."""

from __future__ import annotations

from django.dispatch import Signal

web_starting = Signal()
"""Sent once in each web process, before its first request. The apps connect to it."""
