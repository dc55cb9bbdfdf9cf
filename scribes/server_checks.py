"""The checks of what Scribes stands on: its settings, PostgreSQL, Redis, mail, clock and disk; and
of its own processes, by their heartbeats. See scribes.checks."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import smtplib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import redis
from celery import current_app
from django.conf import settings
from django.core.mail import get_connection
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_app import QUEUES
from scribes import embedded, heartbeats, mail_sink
from scribes.checks import Fault, masked, register

CONNECT_SECONDS = 2
# So many heartbeats may be missing: a worker may be at one task for long.
MAX_MISSING = 6
PING_SECONDS = 0.3
OLDEST_PGVECTOR = (0, 8)
MAX_CLOCK_SECONDS = 5
FULL_MEMORY = 0.9

# --- Settings -------------------------------------------------------------------------------


@register("environment")
def environment() -> str:
    known = sorted(settings.ENVIRONMENT_NAMES)
    in_file = [name for name in _names_in(settings.ENV_FILE) if name not in known]
    # Of all that a system has in its environment, only what looks like a slip.
    slips = [name for name in os.environ if name not in known and _like(name, known, 0.85)]
    if unknown := sorted({*in_file, *slips}):
        raise Fault(
            "; ".join(f"{name} is no variable of Scribes{_hint(name, known)}" for name in unknown),
            settings.ENV_FILE if in_file else "the environment of this process",
            "correct the name: .env.example has all of them",
        )
    return f"{len(known)} variables are known, and none looks like a slip"


def _names_in(file: str) -> list[str]:
    try:
        with open(file) as lines:  # noqa: PTH123 the name may be empty
            found = (re.match(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=", line) for line in lines)
            return [match[1] for match in found if match]
    except OSError:
        return []


def _like(name: str, known: list[str], cutoff: float) -> list[str]:
    return difflib.get_close_matches(name.upper(), known, n=1, cutoff=cutoff)


def _hint(name: str, known: list[str]) -> str:
    close = _like(name, known, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


# --- PostgreSQL -----------------------------------------------------------------------------

# What libpq says, what that means, and what mends it where the server is not the embedded one.
POSTGRES_FAULTS = (
    (
        r"password authentication failed|no password supplied|role .* does not exist|pg_hba",
        "refuses the user or the password",
        "correct DATABASE_URL, or set the password: psql -c '\\password scribes'",
    ),
    (r"database .* does not exist", "has no such database", "createdb --owner scribes {name}"),
    (
        r"timeout|timed out",
        "does not answer in time",
        "look at its log and its load; a firewall may drop port {port}",
    ),
    (
        r"could not translate|Name or service not known|resolve",
        "is on a host that nobody knows",
        "correct the host in DATABASE_URL",
    ),
    (
        r"refused|No such file|not exist",
        "is not running, or not there",
        "sudo systemctl start postgresql, or correct DATABASE_URL",
    ),
)
START_EMBEDDED = "make run, or: manage.py embedded COMMAND"


def _is_embedded(url: str) -> bool:
    data = settings.DATA_DIR
    # On Windows there is none.
    return os.name == "posix" and url in (embedded.database_url(data), embedded.redis_url(data))


@register("PostgreSQL", group="database", vital=True)
def postgres() -> str:
    try:
        version = _value("SHOW server_version")
    except OperationalError as error:
        raise _postgres_fault(str(error)) from error
    return f"{version} at {_database_place()}"


def _postgres_fault(message: str) -> Fault:
    known = (
        (what, mend)
        for pattern, what, mend in POSTGRES_FAULTS
        if re.search(pattern, message, re.IGNORECASE)
    )
    what, mend = next(known, (f"cannot be used: {masked(message)}", "see the message"))
    if _is_embedded(settings.DATABASE_URL):
        mend = START_EMBEDDED
    database = connection.settings_dict
    mend = mend.format(name=database["NAME"], port=database["PORT"] or 5432)
    return Fault(f"PostgreSQL {what}", _database_place(), mend)


def _database_place() -> str:
    return f"{masked(settings.DATABASE_URL)} (DATABASE_URL)"


def _value(query: str) -> object:
    """The first column of the first row; None where there is no row."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return row[0] if row else None


@register("vector extension", group="database", needs=["PostgreSQL"], vital=True)
def vector_extension() -> str:
    version = _value("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    name = connection.settings_dict["NAME"]
    if version is None:
        there = _value("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
        raise Fault(
            "The database has no vector extension",
            _database_place(),
            f"as a superuser: psql {name} -c 'CREATE EXTENSION vector'"
            if there
            else "install pgvector on the server: sudo apt install postgresql-18-pgvector",
        )
    if tuple(map(int, str(version).split(".")[:2])) < OLDEST_PGVECTOR:
        raise Fault(
            f"The vector extension {version} is too old: 0.8 is needed",
            _database_place(),
            f"install pgvector 0.8, then: psql {name} -c 'ALTER EXTENSION vector UPDATE'",
        )
    return f"pgvector {version}"


@register("migrations", group="database", needs=["PostgreSQL"], vital=True)
def migrations() -> str:
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        names = [f"{migration.app_label}.{migration.name}" for migration, _ in missing]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise Fault(f"Not applied: {shown}", _database_place(), "python manage.py migrate")
    return "all are applied"


@register("clock", group="database", needs=["PostgreSQL"])
def clock() -> str:
    before = time.time()
    theirs = float(str(_value("SELECT extract(epoch FROM statement_timestamp())")))
    difference = theirs - (before + time.time()) / 2
    if abs(difference) > MAX_CLOCK_SECONDS:
        raise Fault(
            f"The clocks of this machine and of PostgreSQL differ by {abs(difference):.0f} s",
            "this machine, or the database's",
            "sudo timedatectl set-ntp true, on both",
        )
    return f"{abs(difference):.1f} s from PostgreSQL's"


# --- Scribes' own processes -----------------------------------------------------------------

SCHEMA = ("PostgreSQL", "migrations")


@register("beat", group="database", needs=SCHEMA, vital=True, running=True)
def beat() -> str:
    age = heartbeats.ages().get(heartbeats.BEAT)
    if _is_silent(age):
        raise Fault(
            f"Beat has not looked at its timetable {_since(age)}",
            "the process `celery -A scribes beat`",
            "sudo systemctl restart scribes-beat, or: celery -A scribes beat",
        )
    return f"looked at its timetable {age:.0f} s ago"


@register("workers", group="database", needs=(*SCHEMA, "beat"), vital=True, running=True)
def workers() -> str:
    """Without beat nothing is sent to an idle queue, so that its silence would prove nothing."""
    ages = heartbeats.ages()
    queues = {queue: ages.get(heartbeats.of_queue(queue)) for queue in QUEUES}
    if silent := {queue: age for queue, age in queues.items() if _is_silent(age)}:
        raise Fault(
            "No worker has taken anything from "
            + ", ".join(f"the queue {queue} {_since(age)}" for queue, age in silent.items()),
            _answering_workers(),
            "sudo systemctl restart scribes-worker, or: python manage.py run_worker",
        )
    return f"all of {', '.join(QUEUES)} are consumed"


def _is_silent(age: float | None) -> bool:
    return age is None or age > MAX_MISSING * settings.HEARTBEAT_SECONDS


def _since(age: float | None) -> str:
    return "yet" if age is None else f"for {age:.0f} s"


def _answering_workers() -> str:
    """To tell a worker that is deaf from one that is gone."""
    try:
        _redis().ping()  # Celery would wait for a broker that is down
        answers = current_app.control.inspect(timeout=PING_SECONDS).ping() or {}
    except Exception as error:  # noqa: BLE001 whatever the broker's client raises, nobody answered
        return f"no worker can be asked: {type(error).__name__}"
    if answers:
        return f"{', '.join(sorted(answers))} answers, but takes nothing"
    return "no worker answers: none runs, or it hangs"


# --- Redis ----------------------------------------------------------------------------------


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=CONNECT_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def _redis_place() -> str:
    return f"{masked(settings.REDIS_URL)} (REDIS_URL)"


def _redis_cli(command: str) -> str:
    if settings.REDIS_URL.startswith("unix://"):
        return f"redis-cli -s {settings.REDIS_URL.removeprefix('unix://')} {command}"
    return f"redis-cli -u {masked(settings.REDIS_URL)} {command}"


@contextmanager
def _redis_faults() -> Iterator[None]:
    start = "sudo systemctl start redis, or correct REDIS_URL"
    if _is_embedded(settings.REDIS_URL):
        start = START_EMBEDDED
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        mend = "correct REDIS_URL: redis://:password@host:6379/0"
        raise Fault("Redis refuses the password", _redis_place(), mend) from error
    except redis.TimeoutError as error:
        mend = f"look at its log and its load: {_redis_cli('INFO')}"
        raise Fault("Redis does not answer in time", _redis_place(), mend) from error
    except redis.ConnectionError as error:
        raise Fault("Redis is not running, or not there", _redis_place(), start) from error
    except redis.RedisError as error:
        mend = _redis_cli("INFO")
        raise Fault(f"Redis answers with an error: {error}", _redis_place(), mend) from error


@register("Redis", group="redis", vital=True)
def redis_answers() -> str:
    with _redis_faults():
        _redis().ping()
        version = _redis().info("server").get("redis_version")
    return f"{version} at {_redis_place()}"


@register("Redis keeps messages", group="redis", needs=["Redis"])
def redis_keeps_messages() -> str:
    """With any other policy, a Redis whose memory is full throws messages away, or part of them."""
    with _redis_faults():
        memory, files = _redis().info("memory"), _redis().info("persistence")
    policy, limit = memory.get("maxmemory_policy"), memory.get("maxmemory", 0)
    if policy != "noeviction":
        mend = _redis_cli("CONFIG SET maxmemory-policy noeviction")
        what = f"Redis may throw messages away: its eviction policy is {policy}"
        raise Fault(what, _redis_place(), mend)
    if limit and memory["used_memory"] > FULL_MEMORY * limit:
        mend = f"give it more: {_redis_cli('CONFIG SET maxmemory 2gb')}"
        raise Fault("The memory of Redis is almost full", _redis_place(), mend)
    if "err" in (files.get("aof_last_write_status"), files.get("rdb_last_bgsave_status")):
        mend = "free space on its disk, then look at its log"
        raise Fault("Redis cannot write its file", _redis_place(), mend)
    kept = "on disk" if files.get("aof_enabled") else "in memory and snapshots"
    return f"it evicts nothing and keeps what it has {kept}"


@register("Redis is ours", group="redis", needs=["Redis"])
def redis_is_ours() -> str:
    """Two databases with one broker: each one's workers would take the other one's messages."""
    with _redis_faults():
        owner = _redis().get(_owner_key())
    try:
        ours = database_identity()
    except OperationalError:
        return "not known: PostgreSQL does not answer"
    if owner not in (None, ours.encode()):
        raise Fault(
            f"The Scribes of another database uses {settings.REDIS_KEY_PREFIX}* in this Redis",
            _redis_place(),
            f"set another REDIS_KEY_PREFIX; if that one is gone: {_redis_cli('DEL ' + _owner_key())}",
        )
    return f"{settings.REDIS_KEY_PREFIX}* belongs to this database"


def _owner_key() -> str:
    return f"{settings.REDIS_KEY_PREFIX}database"


@cache
def database_identity() -> str:
    """Of the cluster and the database in it. A copy on another server has another one."""
    query = "SELECT system_identifier || '/' || current_database() FROM pg_control_system()"
    return hashlib.sha256(str(_value(query)).encode()).hexdigest()[:16]


def claim_redis() -> None:
    """Write into Redis that its queues belong to this database, unless they have an owner."""
    _redis().set(_owner_key(), database_identity(), nx=True)


# --- The machine ----------------------------------------------------------------------------


@register("mail server")
def mail_server() -> str:
    place = f"{masked(settings.EMAIL_URL)} (EMAIL_URL)"
    mail = get_connection(timeout=CONNECT_SECONDS)
    try:
        mail.open()
        mail.close()
    except smtplib.SMTPAuthenticationError as error:
        mend = "correct EMAIL_URL: smtp+tls://user:password@host:587"
        raise Fault("The mail server refuses the user or the password", place, mend) from error
    except (smtplib.SMTPException, OSError) as error:
        mend = "correct EMAIL_URL, or start the mail server"
        if mail_sink.url(settings.DATA_DIR) == settings.EMAIL_URL:
            mend = f"set EMAIL_URL, or {START_EMBEDDED}"
        what = f"The mail server cannot be reached: {type(error).__name__}: {error}"
        raise Fault(what, place, mend) from error
    return f"answers at {place}"


@register("disk")
def disk() -> str:
    folder = settings.DATA_DIR
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free // 2**20
    if free < settings.DISK_MIN_FREE_MB:
        raise Fault(
            f"Only {free} MB are free, less than {settings.DISK_MIN_FREE_MB} (DISK_MIN_FREE_MB)",
            str(folder),
            f"free some: du -xh {folder} | sort -h | tail",
        )
    return f"{free:,} MB are free at {folder}"


@register("memory")
def memory() -> str:
    import psutil  # which takes a moment, and most processes never ask

    free = psutil.virtual_memory().available // 2**20
    if free < settings.MEMORY_MIN_FREE_MB:
        raise Fault(
            f"Only {free} MB of memory are free, less than {settings.MEMORY_MIN_FREE_MB} (MEMORY_MIN_FREE_MB)",
            "this machine",
            "set a lower WORKER_CONCURRENCY; who has it: ps aux --sort=-rss | head",
        )
    return f"{free:,} MB are free"
