"""Workers, and jobs that are followed to their end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.processes import Process, running
from jobs.models import BackgroundJob
from jobs.runner import enqueue
from notes.embeddings.regeneration import EmbeddingRegeneration
from scribes.models import User

POLL_SECONDS = 0.005
# Polling may take this share of a job's time, because it uses the CPU, too.
POLL_SHARE = 0.002


@contextmanager
def worker_process(name: str, *options: str) -> Iterator[Process]:
    """`celery -A scribes worker`, ready for messages."""
    command = ["celery", "-A", "scribes", "worker", "-n", f"{name}@%h", *options]
    with running(name, command) as process:
        process.await_output("is ready")
        yield process


def regenerate(user: User, **parameters: Any) -> tuple[BackgroundJob, float]:
    """Run an embedding regeneration; the job, and the seconds from its creation to its end."""
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
