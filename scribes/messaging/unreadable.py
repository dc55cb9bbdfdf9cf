"""Messages that a worker cannot read: logged, counted and dropped.

The rows say what has to be done, so no work is lost: a row that needs a message gets another one.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import redis
from django.conf import settings

from scribes.messaging.broker import TIMEOUT_SECONDS, redis_client

logger = logging.getLogger(__name__)

# Redis keeps this many, the latest ones, and this many characters of each.
KEPT_MESSAGES = 100
KEPT_CHARACTERS = 200


class Dropped(NamedTuple):
    at: str
    queue: str
    reason: str
    message: str
    """Its beginning."""


def drop(queue: str, error: Exception, message: object) -> None:
    """Log and count a message that was taken from its queue. Never raises."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    reason = _shorten(f"{type(error).__name__}: {error}")
    dropped = Dropped(at, queue, reason, _shorten(message))
    logger.error("Dropped a message of the queue %s, which cannot be read (%s): %s", *dropped[1:])
    # Redis may be full. Then the line in the log must do.
    with suppress(redis.RedisError):
        _keep(dropped)


def _shorten(value: object) -> str:
    """The beginning on one line, as text that can be stored."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text[:KEPT_CHARACTERS].encode("unicode_escape").decode()


def _keep(dropped: Dropped) -> None:
    with redis_client(TIMEOUT_SECONDS).pipeline() as pipe:
        pipe.incr(_count_key())
        pipe.lpush(_list_key(), json.dumps(dropped))
        pipe.ltrim(_list_key(), 0, KEPT_MESSAGES - 1)
        pipe.execute()


def latest() -> list[Dropped]:
    """The messages that were dropped, the latest first, at most KEPT_MESSAGES. Raises RedisError."""
    rows: list[Any] = redis_client(TIMEOUT_SECONDS, retries=1).lrange(_list_key(), 0, -1)
    return [Dropped(*json.loads(row)) for row in rows]


def count() -> int:
    """How many messages were dropped since Redis has kept its data. Raises RedisError."""
    return int(redis_client(TIMEOUT_SECONDS, retries=1).get(_count_key()) or 0)


def _list_key() -> str:
    return f"{settings.REDIS_KEY_PREFIX}unreadable"


def _count_key() -> str:
    return f"{settings.REDIS_KEY_PREFIX}unreadable-count"
