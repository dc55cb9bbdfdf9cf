"""The connection to the broker, within a time budget: a request neither waits long for the broker nor
fails because of it."""

from __future__ import annotations

import json
import logging
from functools import cache
from typing import Any

import redis
from celery import current_app
from django.conf import settings
from kombu.pools import ProducerPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from scribes.messaging.failpoints import failpoint

logger = logging.getLogger(__name__)

# The limit for connecting and for each answer. Sending does both at most once, so with the wait for
# a pooled connection one message costs at most three times as much.
TIMEOUT_SECONDS = 0.9

FAILPOINTS = ("before_publish", "after_publish")


def send(task_name: str, args: tuple[Any, ...], queue: str, label: str) -> bool:
    """Send one message; whether the broker took it. Never raises.

    `label` is "Name: details". Flower shows the name as the task's name and the details as its
    arguments. Workers and Flower keep a counter for each name for as long as they run, so use few
    different names.
    """
    name, _, details = label.partition(": ")
    try:
        failpoint("before_publish")
        with producers().acquire(block=True, timeout=TIMEOUT_SECONDS) as producer:
            current_app.send_task(
                task_name,
                args,
                queue=queue,
                producer=producer,
                retry=False,
                ignore_result=True,
                shadow=name,
                argsrepr=details,
            )
        failpoint("after_publish")
    except Exception as error:  # noqa: BLE001 whatever happens to the broker, the work goes on
        logger.warning("Could not publish %s%s: %s", task_name, args, error)
        return False
    return True


@cache
def producers() -> ProducerPool:
    """Connections for sending only. A worker's own connection waits for the broker; these must not."""
    options = current_app.conf.broker_transport_options | {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        # Without this, kombu sleeps for two seconds after a refused connection and tries again.
        "max_retries": 0,
    }
    connection = current_app.connection_for_write(
        connect_timeout=TIMEOUT_SECONDS, transport_options=options
    )
    connections = connection.Pool(limit=current_app.conf.broker_pool_limit)
    return ProducerPool(connections, limit=current_app.conf.broker_pool_limit)


def waiting_messages(queue: str, limit: int) -> list[str]:
    """The labels of the oldest messages in a queue, at most `limit`. Raises redis.RedisError."""
    client = redis_client(TIMEOUT_SECONDS, retries=1)
    messages = client.lrange(_key(queue), -limit, -1) if limit > 0 else []
    return [_label(message) for message in reversed(messages)]


def _label(message: bytes | str) -> str:
    """The label that the message was sent with; for beat's messages, the task and its arguments."""
    try:
        headers = json.loads(message)["headers"]
        name, arguments = headers.get("shadow"), headers["argsrepr"]
        return f"{name}: {arguments}" if name else f"{headers['task']} {arguments}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "an unreadable message"


def queue_length(queue: str) -> int:
    """The number of messages waiting in a queue. Raises redis.RedisError when Redis does not answer."""
    return int(redis_client(TIMEOUT_SECONDS, retries=1).llen(_key(queue)))


def _key(queue: str) -> str:
    return f"{settings.REDIS_KEY_PREFIX}{queue}"


@cache
def redis_client(timeout_seconds: float, retries: int = 0) -> redis.Redis:
    """A client of REDIS_URL that gives up after `timeout_seconds`, for connecting and each answer."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), retries),
    )
