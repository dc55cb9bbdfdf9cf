"""`celery -A scribes worker`, and jobs that are followed to their end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from django.conf import settings

from jobs.models import BackgroundJob
from jobs.runner import enqueue
from notes.indexing import EmbeddingRegeneration
from scribes.models import User
from tests.processes import Process, environment, running

POLL_SECONDS = 0.005
# Of a job's time: asking takes some of the processor's.
POLL_SHARE = 0.002
MEGABYTE = 1024 * 1024


@contextmanager
def worker(name: str, *options: str) -> Iterator[Process]:
    """`celery -A scribes worker`, ready for messages."""
    command = ["celery", "-A", "scribes", "worker", "-n", f"{name}@%h", *options]
    with running(command, settings.DATA_DIR / f"{name}.log", environment()) as process:
        process.await_output("is ready")
        yield process


def regenerate(user: User, **parameters: Any) -> tuple[BackgroundJob, float]:
    """A job from its creation to its end, and how many seconds that took."""
    start = time.perf_counter()
    job, _ = enqueue(user, EmbeddingRegeneration.name, parameters)
    await_end(job)
    return job, time.perf_counter() - start


def await_end(job: BackgroundJob) -> None:
    start = time.perf_counter()
    while not job.is_terminal:
        time.sleep(max(POLL_SECONDS, POLL_SHARE * (time.perf_counter() - start)))
        job.refresh_from_db()
    assert job.status == BackgroundJob.Status.COMPLETED, job.error_message


def resident_mb(process: Process) -> float:
    """Of a process and its children, in MB: PSS, in which each page that several processes share,
    these or others, is divided among them."""
    return sum(member.memory_full_info().pss for member in family(process)) / MEGABYTE


def family(process: Process) -> list[psutil.Process]:
    parent = psutil.Process(process.popen.pid)
    return [parent, *parent.children(recursive=True)]
