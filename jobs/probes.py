from __future__ import annotations

from datetime import timedelta

import redis
from django.conf import settings
from django.db.models import Min
from django.db.models.functions import Now

from celery_app import QUEUES
from jobs.models import BackgroundJob
from scribes.messaging import broker
from scribes.monitoring.probes.registry import ProbeFailed, register

MAX_WAIT = timedelta(minutes=5)
START_MORE_WORKERS = "start more workers: python manage.py run_worker"


@register("queues", group="redis", needs=["Redis"])
def queues() -> str:
    try:
        lengths = {queue: broker.queue_length(queue) for queue in QUEUES}
    except redis.RedisError as error:
        problem = f"The lengths of the queues are unknown: {error}"
        raise ProbeFailed(problem, "REDIS_URL", "see the probe Redis") from error
    limit = settings.QUEUE_FULL_LENGTH
    if full := {queue: length for queue, length in lengths.items() if length > limit}:
        problem = "; ".join(f"{n} messages wait in the queue {queue}" for queue, n in full.items())
        raise ProbeFailed(problem, f"more than {limit} (QUEUE_FULL_LENGTH)", START_MORE_WORKERS)
    return ", ".join(f"{queue} {length}" for queue, length in lengths.items()) + " messages"


@register(
    "waiting jobs",
    group="database",
    needs=["PostgreSQL", "migrations"],
    needs_running_processes=True,
)
def waiting_jobs() -> str:
    queued = BackgroundJob.objects.queued()
    longest = queued.aggregate(wait=Now() - Min("created_at"))["wait"] or timedelta()
    if longest > MAX_WAIT:
        problem = f"A job has been queued for {longest.total_seconds() / 60:.0f} min"
        raise ProbeFailed(problem, "table background_jobs", START_MORE_WORKERS)
    return f"the longest wait is {longest.total_seconds():.0f} s"
