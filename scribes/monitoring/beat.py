from __future__ import annotations

import logging
from typing import Any

from celery.beat import ScheduleEntry
from celery.schedules import crontab
from django_celery_beat import schedulers

from scribes.monitoring import heartbeats

logger = logging.getLogger(__name__)


class DatabaseScheduler(schedulers.DatabaseScheduler):  # type: ignore[misc] # it has no types
    """django-celery-beat's scheduler with a heartbeat at each look at the schedule, every 5 s or
    more often."""

    def tick(self, *args: object, **kwargs: object) -> float:
        heartbeats.record(heartbeats.BEAT)
        seconds: float = super().tick(*args, **kwargs)
        return seconds

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Send the message of a task that is due. If the broker refuses it, the next one is sent when
        the task is due again.

        Tasks that run at certain times of the day are logged. Those that run every few seconds would
        fill the log.
        """
        level = logging.INFO if isinstance(entry.schedule, crontab) else logging.DEBUG
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # noqa: BLE001 whatever happens to the broker, beat goes on
            logger.warning("%s", error)
        else:
            logger.log(level, "Sent the message of %s (%s)", entry.name, entry.task)
