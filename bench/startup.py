"""From the start of a worker to its first finished task."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from django.conf import settings
from redis import Redis

from bench.jobs import await_end
from bench.measure import Line, duration, no_target
from bench.peers import bare_celery
from bench.processes import running
from jobs.runner import enqueue
from notes.embeddings.regeneration import EmbeddingRegeneration
from scribes.models import User

ROUNDS = 5
KEY = "scribes-bench-bare"


def run() -> Iterator[Line]:
    user = User.objects.create_user("startup@example.com")
    times = [(scribes_worker(user), bare_worker()) for _ in range(ROUNDS)]
    ours, theirs = map(median, zip(*times, strict=True))
    title = "`celery -A scribes worker` from its start to the end of its first job, without notes"
    peer = "a bare Celery app with one task"
    yield no_target(title, duration(ours), peer, duration(theirs), ours / theirs)


def scribes_worker(user: User) -> float:
    """The seconds that a worker needs, started while a job waits in the queue."""
    job, _ = enqueue(user, EmbeddingRegeneration.name, {})
    start = time.perf_counter()
    with running("ours", ["celery", "-A", "scribes", "worker"]):
        await_end(job)
        return time.perf_counter() - start


def bare_worker() -> float:
    """The same for an app with nothing but the broker's address. Its task pushes a key."""
    command = ["celery", "-A", "bench.peers.bare_celery", "worker", "--concurrency", "2"]
    with Redis.from_url(settings.REDIS_URL, socket_timeout=None) as redis:
        redis.delete(KEY)
        bare_celery.push.delay(KEY)
        start = time.perf_counter()
        with running("bare", command):
            assert redis.blpop([KEY], timeout=60)
            return time.perf_counter() - start
