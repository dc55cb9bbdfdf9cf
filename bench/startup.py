"""From `celery worker` to the first finished task."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from django.conf import settings
from redis import Redis

from bench.jobs import await_end
from bench.measure import Line, duration, told
from jobs.runner import enqueue
from notes.indexing import EmbeddingRegeneration
from scribes.models import User
from tests.processes import environment, running

ROUNDS = 5
KEY = "scribes-bench-bare"


def run() -> Iterator[Line]:
    user = User.objects.create_user("startup@example.com")
    times = [(ours(user), bare()) for _ in range(ROUNDS)]
    own, peer = map(median, zip(*times, strict=True))
    what = "`celery -A scribes worker` to its first finished job, of no notes"
    yield told(what, duration(own), "a bare Celery app and task", duration(peer), own / peer)


def ours(user: User) -> float:
    """The job waits in the queue before the worker starts."""
    job, _ = enqueue(user, EmbeddingRegeneration.name, {})
    start = time.perf_counter()
    with running(
        ["celery", "-A", "scribes", "worker"], settings.DATA_DIR / "ours.log", environment()
    ):
        await_end(job)
        return time.perf_counter() - start


def bare() -> float:
    """The same of an app with nothing but the broker's address, which pushes a key when done."""
    command = ["celery", "-A", "bench.peers.bare_celery", "worker", "--concurrency", "2"]
    with Redis.from_url(settings.REDIS_URL) as redis:
        redis.delete(KEY)
        from bench.peers.bare_celery import light

        light.delay(KEY)
        start = time.perf_counter()
        with running(command, settings.DATA_DIR / "bare.log", environment()):
            redis.blpop([KEY], timeout=60)
            return time.perf_counter() - start
