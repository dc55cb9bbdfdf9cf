"""Tasks that record in which order a worker takes messages.

`celery -A scribes worker --include tests.helpers.turns` makes a worker know them.
"""

from __future__ import annotations

import redis
from celery import shared_task
from django.conf import settings
from kombu.utils.encoding import bytes_to_str

TURNS = f"{settings.REDIS_KEY_PREFIX}turns"
HOLDING = f"{settings.REDIS_KEY_PREFIX}holding"
GO = f"{settings.REDIS_KEY_PREFIX}go"


def client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL)


@shared_task(name="tests.hold")
def hold() -> None:
    """Keep the process busy until `let_go` is called."""
    client().rpush(HOLDING, 1)
    client().blpop([GO], timeout=60)


@shared_task(name="tests.take_turn")
def take_turn(queue: str) -> None:
    client().rpush(TURNS, queue)


def await_hold() -> None:
    assert client().blpop([HOLDING], timeout=60)


def let_go() -> None:
    client().rpush(GO, 1)


def turns() -> list[str]:
    """The queues of the messages that were taken, in order."""
    return [bytes_to_str(queue) for queue in client().lrange(TURNS, 0, -1)]
