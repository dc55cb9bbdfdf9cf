"""How many messages workers could not read, counted in Redis, where all processes see it."""

from __future__ import annotations

import logging

from django.conf import settings
from redis import RedisError

from scribes.messaging.broker import TIMEOUT_SECONDS, redis_client

logger = logging.getLogger(__name__)


def count_unreadable(error: Exception) -> None:
    """Count one more. Never raises."""
    try:
        redis_client(TIMEOUT_SECONDS).hincrby(_key(), type(error).__name__)
    except RedisError as problem:
        logger.warning("An unreadable message could not be counted: %s", problem)


def unreadable_messages() -> dict[str, int]:
    """The number of messages by the kind of error, since Redis was emptied. Raises RedisError."""
    counts: dict[bytes, bytes] = redis_client(TIMEOUT_SECONDS, retries=1).hgetall(_key())  # type: ignore[assignment]
    return {kind.decode(): int(number) for kind, number in counts.items()}


def _key() -> str:
    return f"{settings.REDIS_KEY_PREFIX}unreadable"
