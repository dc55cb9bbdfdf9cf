"""A Celery app with one task and nothing else."""

from __future__ import annotations

import os

from celery import Celery
from redis import Redis

URL = os.environ["REDIS_URL"]

app = Celery("bare", broker=URL.replace("unix://", "redis+socket://", 1), set_as_current=False)
app.conf.task_default_queue = "scribes-bench-bare-celery"


@app.task(ignore_result=True)
def push(key: str) -> None:
    with Redis.from_url(URL) as redis:
        redis.rpush(key, "done")
