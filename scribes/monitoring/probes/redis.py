"""Does Redis answer, does it keep its messages, and do they belong to this database?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache

import redis
from django.conf import settings
from django.db import OperationalError

from scribes.messaging import unreadable
from scribes.messaging.broker import redis_client
from scribes.monitoring.probes.addresses import START_EMBEDDED, is_embedded
from scribes.monitoring.probes.postgres import select_value
from scribes.monitoring.probes.registry import ProbeFailed, mask_passwords, register

TIMEOUT_SECONDS = 2
# Of maxmemory.
FULL_MEMORY_SHARE = 0.9
# A message that was dropped longer ago is no problem any more.
RECENT = timedelta(hours=1)


def client() -> redis.Redis:
    return redis_client(TIMEOUT_SECONDS)


def _location() -> str:
    return f"{mask_passwords(settings.REDIS_URL)} (REDIS_URL)"


def _redis_cli(command: str) -> str:
    if settings.REDIS_URL.startswith("unix://"):
        return f"redis-cli -s {settings.REDIS_URL.removeprefix('unix://')} {command}"
    return f"redis-cli -u {mask_passwords(settings.REDIS_URL)} {command}"


@contextmanager
def _errors_as_failures() -> Iterator[None]:
    """Raise ProbeFailed for each kind of error that redis-py raises."""
    start = "sudo systemctl start redis, or correct REDIS_URL"
    if is_embedded(settings.REDIS_URL):
        start = START_EMBEDDED
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        fix = "correct REDIS_URL: redis://:password@host:6379/0"
        raise ProbeFailed("Redis rejects the password", _location(), fix) from error
    except redis.TimeoutError as error:
        fix = f"look at its log and its load: {_redis_cli('INFO')}"
        raise ProbeFailed("Redis does not answer in time", _location(), fix) from error
    except redis.ConnectionError as error:
        problem = "Redis does not accept connections: it is not running, or not at this address"
        raise ProbeFailed(problem, _location(), start) from error
    except redis.RedisError as error:
        fix = _redis_cli("INFO")
        raise ProbeFailed(f"Redis answers with an error: {error}", _location(), fix) from error


@register("Redis", group="redis", critical=True)
def redis_answers() -> str:
    with _errors_as_failures():
        client().ping()
        version = client().info("server").get("redis_version")
    return f"{version} at {_location()}"


@register("Redis keeps messages", group="redis", needs=["Redis"])
def redis_keeps_messages() -> str:
    """With any other eviction policy, Redis deletes messages when its memory is full."""
    with _errors_as_failures():
        memory, files = client().info("memory"), client().info("persistence")
    policy, limit = memory.get("maxmemory_policy"), memory.get("maxmemory", 0)
    if policy != "noeviction":
        fix = _redis_cli("CONFIG SET maxmemory-policy noeviction")
        problem = f"Redis may delete messages: its eviction policy is {policy}"
        raise ProbeFailed(problem, _location(), fix)
    if limit and memory["used_memory"] > FULL_MEMORY_SHARE * limit:
        fix = f"raise the limit: {_redis_cli('CONFIG SET maxmemory 2gb')}"
        raise ProbeFailed("The memory of Redis is almost full", _location(), fix)
    if "err" in (files.get("aof_last_write_status"), files.get("rdb_last_bgsave_status")):
        fix = "free space on its disk, then look at its log"
        raise ProbeFailed("Redis cannot write to its disk", _location(), fix)
    kept = "on disk" if files.get("aof_enabled") else "in memory and in snapshots"
    return f"no eviction, and messages are kept {kept}"


@register("readable messages", group="redis", needs=["Redis"])
def messages_are_readable() -> str:
    """Something else writes to the queues, or another version of Scribes does."""
    with _errors_as_failures():
        latest, count = unreadable.latest(), unreadable.count()
    if latest and datetime.now(UTC) - datetime.fromisoformat(latest[0].at) < RECENT:
        raise ProbeFailed(
            f"Workers dropped {count} messages that cannot be read, the latest at {latest[0].at}",
            f"the queue {latest[0].queue}",
            "look at them: python manage.py queues",
        )
    return f"none was dropped in the last hour, {count} before"


@register("Redis owner", group="redis", needs=["Redis"])
def redis_owner() -> str:
    """If two databases share a broker, each one's workers take the other one's messages."""
    with _errors_as_failures():
        owner = client().get(_owner_key())
    try:
        identity = database_identity()
    except OperationalError:
        return "unknown: PostgreSQL does not answer"
    if owner not in (None, identity.encode()):
        delete_owner = _redis_cli("DEL " + _owner_key())
        raise ProbeFailed(
            f"The Scribes of another database uses {settings.REDIS_KEY_PREFIX}* in this Redis",
            _location(),
            f"set another REDIS_KEY_PREFIX; if the other Scribes no longer exists: {delete_owner}",
        )
    return f"{settings.REDIS_KEY_PREFIX}* belongs to this database"


def _owner_key() -> str:
    return f"{settings.REDIS_KEY_PREFIX}database"


@cache
def database_identity() -> str:
    """An id of the cluster and the database in it. A copy on another server has another id."""
    query = "SELECT system_identifier || '/' || current_database() FROM pg_control_system()"
    return hashlib.sha256(str(select_value(query)).encode()).hexdigest()[:16]


def claim_redis() -> None:
    """Record in Redis that its queues belong to this database, unless they have an owner.

    A full Redis cannot record it. The next worker that starts does.
    """
    with suppress(redis.exceptions.OutOfMemoryError):
        client().set(_owner_key(), database_identity(), nx=True)
