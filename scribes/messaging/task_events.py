"""What Flower shows of the task that a process is running."""

from __future__ import annotations

import logging
from typing import Any

from celery import current_app

from scribes.messaging.broker import TIMEOUT_SECONDS, producers

logger = logging.getLogger(__name__)


def relabel_task(label: str) -> None:
    """Tell Flower that the current task works on something else than its message said.

    `label` is as in scribes.messaging.publishing. Nothing happens outside of a worker. Never raises:
    without the event, Flower shows what the message said. A broker that is down or slow costs as
    much time as in publishing.
    """
    name, _, details = label.partition(": ")
    task = current_app.current_worker_task
    if task is None:
        return
    try:
        _send_started(task.request, name=name, args=details)
    except Exception as error:  # noqa: BLE001 whatever happens to the broker, the work goes on
        logger.warning("Flower was not told about %s: %s", label, error)


def _send_started(request: Any, **fields: str) -> None:
    with (
        producers().acquire(block=True, timeout=TIMEOUT_SECONDS) as producer,
        current_app.events.Dispatcher(
            producer.connection, request.hostname, channel=producer.channel
        ) as events,
    ):
        events.send("task-started", retry=False, uuid=request.id, **fields)
