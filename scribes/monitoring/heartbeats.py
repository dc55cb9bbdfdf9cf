"""Heartbeats in the database: which process last did its work, and when.

A worker records a heartbeat when it takes a message from a queue. It is not enough that its process
runs or that it answers a ping. Beat sends each queue a message for that, and records a heartbeat of
its own whenever it looks at its schedule. Times are the database's.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from datetime import timedelta
from typing import Any

from celery.signals import task_prerun
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Max
from django.db.models.functions import Now

from celery_app import QUEUES
from scribes.models import Heartbeat

logger = logging.getLogger(__name__)

BEAT = "beat"
KEEP = timedelta(days=1)

_recorded_at: dict[str, float] = {}


def of_queue(queue: str) -> str:
    return f"queue {queue}"


@task_prerun.connect
def record_consumption(task: Any, **_: Any) -> None:
    """Record that this worker consumes the queue that the message came from."""
    queue = (task.request.delivery_info or {}).get("routing_key")
    if queue in QUEUES:
        record(of_queue(queue))


def record(name: str) -> None:
    """Record that this process has just done the work that `name` stands for.

    Writes at most twice in HEARTBEAT_SECONDS, however often it is called. Never raises: the work
    itself matters more.
    """
    interval = settings.HEARTBEAT_SECONDS / 2
    if time.monotonic() - _recorded_at.get(name, -interval) < interval:
        return
    try:
        _write(name)
        _recorded_at[name] = time.monotonic()
    except DatabaseError as error:
        logger.warning("The heartbeat of %s was not written: %s", name, error)
        # The next query must not get the broken connection.
        connection.close()


def _write(name: str) -> None:
    Heartbeat.objects.bulk_create(
        [Heartbeat(name=name, process=process_name(), at=Now())],
        update_conflicts=True,
        unique_fields=["name", "process"],
        update_fields=["at"],
    )


def process_name() -> str:
    """How the tables name this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def ages() -> dict[str, float]:
    """Seconds since the latest heartbeat of each name."""
    latest = Heartbeat.objects.values("name").annotate(age=Now() - Max("at"))
    return {row["name"]: row["age"].total_seconds() for row in latest}


def prune() -> None:
    """Delete the heartbeats of processes that ended long ago."""
    Heartbeat.objects.filter(at__lt=Now() - KEEP).delete()
