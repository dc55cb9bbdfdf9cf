from __future__ import annotations

from django_celery_beat import schedulers

from scribes import heartbeats


class DatabaseScheduler(schedulers.DatabaseScheduler):  # type: ignore[misc] # it has no types
    """django-celery-beat's, with a heartbeat: at each look at the timetable, every 5 s or sooner."""

    def tick(self, *args: object, **kwargs: object) -> float:
        heartbeats.record(heartbeats.BEAT)
        seconds: float = super().tick(*args, **kwargs)
        return seconds
