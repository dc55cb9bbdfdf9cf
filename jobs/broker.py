"""Messages to the broker, within a time budget: a request never hangs on it, nor fails with it."""

from __future__ import annotations

import json
import logging
from functools import cache
from typing import Any

import redis
from celery import Task, current_app
from django.conf import settings
from kombu.pools import ProducerPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from jobs.failpoints import failpoint

logger = logging.getLogger(__name__)

# A connection that neither connects nor answers within this time is given up. Sending does both
# at most once, so with the wait for a connection a message costs at most three times as much.
TIMEOUT_SECONDS = 0.9


def send(task: Task[..., Any], args: tuple[Any, ...], queue: str, says: str) -> bool:
    """Whether the broker took the message. If not, the row it tells of stays as it is.

    In Flower the first word of `says` is the task's name, and the rest its arguments. A worker and
    Flower count by name and never forget one, so there must be few different first words.
    """
    name, _, details = says.partition(" ")
    label: dict[str, Any] = {"shadow": name, "argsrepr": details}
    try:
        failpoint("before_publish")
        with _producers().acquire(block=True, timeout=TIMEOUT_SECONDS) as producer:
            task.apply_async(args, queue=queue, producer=producer, retry=False, **label)
        failpoint("after_publish")
    except Exception as error:  # noqa: BLE001 whatever happens to the broker, the work goes on
        logger.warning("Could not publish %s%s: %s", task.name, args, error)
        return False
    return True


@cache
def _producers() -> ProducerPool:
    """Connections for sending only: a worker's own must be patient, these must not."""
    options = current_app.conf.broker_transport_options | {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        # Without this, kombu sleeps for two seconds after a refused connection, then tries again.
        "max_retries": 0,
    }
    connection = current_app.connection_for_write(
        connect_timeout=TIMEOUT_SECONDS, transport_options=options
    )
    connections = connection.Pool(limit=current_app.conf.broker_pool_limit)
    return ProducerPool(connections, limit=current_app.conf.broker_pool_limit)


def waiting(queue: str, limit: int) -> list[str]:
    """Tasks and arguments of the oldest messages in a queue. Raises redis.RedisError, too."""
    messages = _redis().lrange(_key(queue), -limit, -1) if limit > 0 else []
    headers = [json.loads(message)["headers"] for message in reversed(messages)]
    return [f"{h.get('shadow') or h['task']} {h['argsrepr']}" for h in headers]


def queue_length(queue: str) -> int:
    """Messages that wait in a queue. Raises redis.RedisError when Redis does not answer."""
    return int(_redis().llen(_key(queue)))


def _key(queue: str) -> str:
    return f"{settings.REDIS_KEY_PREFIX}{queue}"


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )
