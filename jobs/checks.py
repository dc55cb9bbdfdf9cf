from __future__ import annotations

from datetime import timedelta

import redis
from django.conf import settings
from django.db.models import Min
from django.db.models.functions import Now

from celery_app import QUEUES
from jobs import broker
from jobs.models import BackgroundJob
from scribes.checks import Fault, register

MAX_WAIT = timedelta(minutes=5)
MORE_WORKERS = "start more workers: python manage.py run_worker"


@register("queues", group="redis", needs=["Redis"])
def queues() -> str:
    try:
        lengths = {queue: broker.queue_length(queue) for queue in QUEUES}
    except redis.RedisError as error:
        raise Fault(f"Their lengths are not known: {error}", "REDIS_URL", "see Redis") from error
    if full := {q: n for q, n in lengths.items() if n > settings.QUEUE_FULL_LENGTH}:
        what = "; ".join(f"{n} messages wait in the queue {queue}" for queue, n in full.items())
        raise Fault(
            what, f"more than {settings.QUEUE_FULL_LENGTH} (QUEUE_FULL_LENGTH)", MORE_WORKERS
        )
    return ", ".join(f"{queue} {n}" for queue, n in lengths.items()) + " messages"


@register("waiting jobs", group="database", needs=["PostgreSQL", "migrations"], running=True)
def waiting_jobs() -> str:
    queued = BackgroundJob.objects.filter(status=BackgroundJob.Status.QUEUED)
    longest = queued.aggregate(wait=Now() - Min("created_at"))["wait"] or timedelta()
    if longest > MAX_WAIT:
        what = f"A job has been queued for {longest.total_seconds() / 60:.0f} min"
        raise Fault(what, "table background_jobs", MORE_WORKERS)
    return f"the longest waits {longest.total_seconds():.0f} s"
