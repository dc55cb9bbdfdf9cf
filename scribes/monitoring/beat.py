from __future__ import annotations

from django_celery_beat import schedulers

from scribes.monitoring import heartbeats


class DatabaseScheduler(schedulers.DatabaseScheduler):  # type: ignore[misc] # it has no types
    """django-celery-beat's scheduler with a heartbeat at each look at the schedule, every 5 s or
    more often."""

    def tick(self, *args: object, **kwargs: object) -> float:
        heartbeats.record(heartbeats.BEAT)
        seconds: float = super().tick(*args, **kwargs)
        return seconds
