"""Proof of life, in the database: who did what they are there for, and when they last did.

A worker that has taken a message from a queue writes so: it is not enough that its process runs,
or that it answers a ping. Beat sends a message to each queue for that, and writes on its own
behalf whenever it looks at its timetable. Times are the database's.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Max
from django.db.models.functions import Now

from scribes.models import Heartbeat

logger = logging.getLogger(__name__)

BEAT = "beat"
KEEP = timedelta(days=1)

_written: dict[str, float] = {}


def of_queue(queue: str) -> str:
    return f"queue {queue}"


def record(name: str) -> None:
    """This process has just done what `name` stands for. Never raises: work matters more.

    However often that is, it is written twice in each HEARTBEAT_SECONDS only.
    """
    every = settings.HEARTBEAT_SECONDS / 2
    if time.monotonic() - _written.get(name, -every) < every:
        return
    try:
        _write(name)
        _written[name] = time.monotonic()
    except DatabaseError as error:
        logger.warning("The heartbeat of %s was not written: %s", name, error)
        # What comes next shall not meet a broken connection.
        connection.close()


def _write(name: str) -> None:
    Heartbeat.objects.bulk_create(
        [Heartbeat(name=name, process=f"{socket.gethostname()}:{os.getpid()}", at=Now())],
        update_conflicts=True,
        unique_fields=["name", "process"],
        update_fields=["at"],
    )


def ages() -> dict[str, float]:
    """Seconds since the latest heartbeat of each name."""
    latest = Heartbeat.objects.values("name").annotate(age=Now() - Max("at"))
    return {row["name"]: row["age"].total_seconds() for row in latest}


def prune() -> None:
    """Forget processes that have long gone."""
    Heartbeat.objects.filter(at__lt=Now() - KEEP).delete()
