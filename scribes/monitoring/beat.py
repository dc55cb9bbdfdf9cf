from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.signals import beat_init
from django_celery_beat import schedulers

from scribes.monitoring import heartbeats


class DatabaseScheduler(schedulers.DatabaseScheduler):  # type: ignore[misc] # it has no types
    """django-celery-beat's scheduler with a heartbeat at each look at the schedule, every 5 s or
    more often, and with an end that interrupts neither a query nor a message."""

    _is_busy = False
    _is_stopping = False

    def tick(self, *args: object, **kwargs: object) -> float:
        with self._busy():
            heartbeats.record(heartbeats.BEAT)
            seconds: float = super().tick(*args, **kwargs)
        if self._is_stopping:
            raise SystemExit
        return seconds

    def sync(self) -> None:
        with self._busy():
            super().sync()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        before, self._is_busy = self._is_busy, True
        try:
            yield
        finally:
            self._is_busy = before

    def stop(self, *signal_and_frame: object) -> None:
        """End beat now if it sleeps, or after its present look at the schedule.

        Celery's own handler writes the schedule at once. If the signal interrupts a query, this hangs
        or fails; if it interrupts a library that catches all exceptions, beat goes on.
        """
        self._is_stopping = True
        if not self._is_busy:
            raise SystemExit


@beat_init.connect
def handle_signals(sender: Any, **_: object) -> None:
    """Replace Celery's handlers, which are installed by now."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, sender.scheduler.stop)
