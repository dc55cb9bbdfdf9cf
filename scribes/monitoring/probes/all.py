"""Registers the probes of this package. Apps register theirs in their own `probes` module."""

from __future__ import annotations

from scribes.monitoring.probes import environment, machine, postgres, processes, redis

__all__ = ["environment", "machine", "postgres", "processes", "redis"]
