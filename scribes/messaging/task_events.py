"""What Flower shows of the task that a process is running."""

from __future__ import annotations

import logging

from celery import current_app

logger = logging.getLogger(__name__)


def relabel_task(label: str) -> None:
    """Tell Flower that the current task works on something else than its message said.

    `label` is as in scribes.messaging.publishing. Nothing happens outside of a worker. Never raises:
    without the event, Flower shows what the message said.
    """
    name, _, details = label.partition(": ")
    task = current_app.current_worker_task
    if task is None:
        return
    try:
        task.send_event("task-started", retry=False, name=name, args=details)
    except Exception as error:  # noqa: BLE001 whatever happens to the broker, the work goes on
        logger.warning("Flower was not told about %s: %s", label, error)
