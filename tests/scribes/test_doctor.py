"""`manage.py doctor` and `run_worker`: every fault is made for real. One run finds several at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from django.conf import settings
from django.db import connection
from django.utils import timezone

from scribes import embedded
from scribes.models import Heartbeat, User
from tests.jobs.conftest import make_job
from tests.processes import MANAGE, environment, eventually, free_port, running

# For the test database, migrated; these tests change nothing in it for good.
pytestmark = pytest.mark.django_db


def doctor(command: str = "doctor", *arguments: str, **variables: str):
    return subprocess.run(
        [*MANAGE, command, *arguments],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def faults(**variables: str) -> dict[str, dict[str, str]]:
    """What doctor complains of, by name."""
    result = doctor("doctor", "--json", **variables)
    assert result.returncode == 1, result.stdout + result.stderr
    reports = json.loads(result.stdout)
    return {report["name"]: report for report in reports if report["state"] == "fault"}


def says(fault: dict[str, str], what: str, where: str, mend: str) -> None:
    for key, part in (("what", what), ("where", where), ("mend", mend)):
        assert part in fault[key], fault


# --- PostgreSQL -----------------------------------------------------------------------------


@contextmanager
def maintenance() -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings.DATABASE_URL, dbname="postgres", autocommit=True) as server:
        yield server


@contextmanager
def database_called(name: str) -> Iterator[str]:
    """A new database; its URL."""
    with maintenance() as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield url_of(name)
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def url_of(name: str, user: str = "") -> str:
    url = urlsplit(settings.DATABASE_URL)
    query = url.query.replace("user=scribes", f"user={user}") if user else url.query
    return f"{url.scheme}://{url.netloc}/{name}" + (f"?{query}" if query else "")


@contextmanager
def password_needed(user: str) -> Iterator[None]:
    """For a user of the embedded server, which asks nobody else for one."""
    with maintenance() as server:
        row = server.execute("SHOW hba_file").fetchone()
        assert row
        file = Path(row[0])
        before = file.read_text()
        server.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'right'")
        file.write_text(f"local all {user} scram-sha-256\n{before}")
        server.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            file.write_text(before)
            server.execute("SELECT pg_reload_conf()")
            server.execute(f"DROP ROLE {user}")


# --- Redis ----------------------------------------------------------------------------------


class Valkey:
    """One of the test's own."""

    def __init__(self, data: Path, *options: str) -> None:
        (data / "valkey").mkdir(parents=True)
        embedded.socket_dir(data).mkdir(mode=0o700, exist_ok=True)
        self.url = embedded.redis_url(data)
        self.process = subprocess.Popen(
            [*embedded.valkey_command(data), *options], stdout=subprocess.DEVNULL
        )
        eventually(self._listens, timeout=10)

    def _listens(self) -> bool:
        try:
            return redis.Redis.from_url(self.url).ping() is True
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "own")
    yield server
    server.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


# --- The tests ------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path):
    """A new machine: no server runs, no model is there, and there are slips in .env."""
    file = tmp_path / "scribes.env"
    file.write_text("# comment\nREDIS_ULR=redis://localhost\nexport JOB_TIMEOUTS = 5\n")
    port = free_port()
    found = faults(
        DATABASE_URL=f"postgresql://scribes:s3cret@127.0.0.1:{port}/scribes",
        REDIS_URL=f"redis://:s3cret@127.0.0.1:{port}/0",
        EMAIL_URL=f"smtp://me:s3cret@127.0.0.1:{port}",
        EMBEDDING_MODEL=str(tmp_path / "model"),
        ENV_FILE=str(file),
        DISK_MIN_FREE_MB="999999999",
        MEMORY_MIN_FREE_MB="999999999",
    )
    place = f"postgresql://scribes:***@127.0.0.1:{port}/scribes"
    says(found["PostgreSQL"], "not running", place, "systemctl start postgresql")
    says(found["Redis"], "not running", f"redis://:***@127.0.0.1:{port}/0", "start redis")
    says(found["mail server"], "refused", f"smtp://me:***@127.0.0.1:{port}", "EMAIL_URL")
    model = str(tmp_path / "model")
    says(found["embedding model"], "lacks model.safetensors", model, "EMBEDDING_MODEL")
    says(found["environment"], "REDIS_ULR is no variable", str(file), ".env.example")
    assert "did you mean REDIS_URL?" in found["environment"]["what"]
    assert "did you mean JOB_TIMEOUT?" in found["environment"]["what"]
    says(found["disk"], "MB are free", "/", "du -xh")
    says(found["memory"], "MB of memory are free", "this machine", "WORKER_CONCURRENCY")
    assert len(found) == 7  # and no fault that only follows from another
    assert "s3cret" not in json.dumps(found)


def test_wrong_passwords(tmp_path: Path):
    valkey = Valkey(tmp_path / "own", "--requirepass", "right")
    try:
        with password_needed("locked_out"):
            found = faults(
                DATABASE_URL=f"{url_of('postgres', 'locked_out')}&password=s3cret",
                REDIS_URL=f"{valkey.url}?password=s3cret",
            )
    finally:
        valkey.close()
    says(found["PostgreSQL"], "refuses the user or the password", "***", "DATABASE_URL")
    says(found["Redis"], "refuses the password", "***", "REDIS_URL")
    assert "s3cret" not in json.dumps(found)


def test_a_missing_database_and_a_redis_that_hangs(valkey: Valkey, silent_port: int):
    valkey.process.send_signal(signal.SIGSTOP)
    found = faults(
        DATABASE_URL=url_of("nowhere"),
        REDIS_URL=valkey.url,
        EMAIL_URL=f"smtp://127.0.0.1:{silent_port}",
    )
    says(found["PostgreSQL"], "no such database", "nowhere", "createdb --owner scribes nowhere")
    says(found["Redis"], "does not answer in time", valkey.url, "INFO")
    says(found["mail server"], "timed out", str(silent_port), "EMAIL_URL")


def test_a_new_database_and_a_redis_that_evicts(valkey: Valkey):
    redis.Redis.from_url(valkey.url).config_set("maxmemory-policy", "allkeys-lru")
    with database_called("empty") as url:
        found = faults(DATABASE_URL=url, REDIS_URL=valkey.url)
    says(found["vector extension"], "no vector extension", "/empty", "psql empty -c 'CREATE EXT")
    says(found["migrations"], "auth.0001_initial", "/empty", "manage.py migrate")
    mend = "CONFIG SET maxmemory-policy noeviction"
    says(found["Redis keeps messages"], "eviction policy is allkeys-lru", valkey.url, mend)


def test_a_postgres_that_hangs_and_a_queue_that_is_full(valkey: Valkey, silent_port: int):
    key = f"{settings.REDIS_KEY_PREFIX}embeddings"
    redis.Redis.from_url(valkey.url).rpush(key, *["{}"] * 1001)
    url = f"postgresql://u:p@127.0.0.1:{silent_port}/db?connect_timeout=2"
    found = faults(DATABASE_URL=url, REDIS_URL=valkey.url)
    says(found["PostgreSQL"], "does not answer in time", "u:***@", str(silent_port))
    says(found["queues"], "1001 messages wait in the queue embeddings", "QUEUE_FULL", "run_worker")


SLOW_CLOCK = """
CREATE SCHEMA slow;
CREATE FUNCTION slow.statement_timestamp() RETURNS timestamptz LANGUAGE sql
    AS $$ SELECT pg_catalog.statement_timestamp() - interval '1 hour' $$;
"""


def test_a_missing_migration_a_wrong_clock_and_a_redis_of_others(valkey: Valkey):
    owner = f"{settings.REDIS_KEY_PREFIX}database"
    redis.Redis.from_url(valkey.url).set(owner, "another")
    name = connection.settings_dict["NAME"]
    forget = "DELETE FROM django_migrations WHERE app = 'reminders' RETURNING app, name, applied"
    with psycopg.connect(settings.DATABASE_URL, dbname=name, autocommit=True) as database:
        database.execute(SLOW_CLOCK)
        rows = database.execute(forget).fetchall()
        try:
            url = f"{url_of(name)}&options=-csearch_path%3Dslow,pg_catalog,public"
            found = faults(DATABASE_URL=url, REDIS_URL=valkey.url)
        finally:
            database.execute("DROP SCHEMA slow CASCADE")
            insert = "INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)"
            database.cursor().executemany(insert, rows)
    says(found["migrations"], "Not applied: reminders.0001_initial", name, "manage.py migrate")
    says(found["Redis is ours"], "another database", valkey.url, f"DEL {owner}")
    says(found["clock"], "differ by 3600 s", "database", "timedatectl")


@pytest.mark.django_db(transaction=True)
def test_work_that_waits_a_redis_that_is_full_and_a_mail_server_that_refuses(
    alice: User, valkey: Valkey
):
    make_job(alice, minutes_ago=10)
    Heartbeat.objects.create(name="sweep", process="x", at=timezone.now() - timedelta(hours=1))
    client = redis.Redis.from_url(valkey.url)
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.05))
    with refusing_mail_server() as port:
        found = faults(REDIS_URL=valkey.url, EMAIL_URL=f"smtp://me:s3cret@127.0.0.1:{port}")
    says(found["waiting jobs"], "has been queued for 10 min", "background_jobs", "run_worker")
    says(found["reminder sweep"], "was 60 min ago", "queue reminders", "restart scribes-beat")
    says(found["Redis keeps messages"], "almost full", valkey.url, "CONFIG SET maxmemory")
    says(found["mail server"], "refuses the user or the password", "me:***@", "EMAIL_URL")


@contextmanager
def refusing_mail_server() -> Iterator[int]:
    """Nobody may sign in. Its port."""
    controller = Controller(
        object(),
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=lambda *_: AuthResult(success=False, handled=False),
        auth_require_tls=False,
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def test_run_worker_lists_what_is_wrong_and_does_not_start():
    port = free_port()
    result = doctor(
        "run_worker",
        DATABASE_URL="postgresql://scribes:s3cret@nowhere.invalid/scribes",
        REDIS_URL=f"redis://127.0.0.1:{port}/0",
        EMAIL_URL=f"smtp://127.0.0.1:{port}",
    )
    assert result.returncode == 1
    assert "is on a host that nobody knows" in result.stderr
    for text in ("✘ PostgreSQL", "✘ Redis", "✘ mail server", "mend:", "The worker does not start."):
        assert text in result.stderr
    assert "s3cret" not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    assert "beat" not in result.stderr


ON_WINDOWS = """
import django, sys
django.setup()
from scribes.management.commands.run_worker import become
sys.platform = "win32"
become(["-n", "windows@%h"])
"""


@pytest.mark.django_db(transaction=True)
def test_what_run_worker_does_on_windows(tmp_path: Path):
    """As far as that can be seen elsewhere: the worker is its only child, and works without others."""
    command = [sys.executable, "-c", ON_WINDOWS]
    with running(command, tmp_path / "worker.log", environment()) as parent:
        parent.await_output("is ready")
        eventually(lambda: Heartbeat.objects.filter(name="queue embeddings").exists())
        (worker,) = psutil.Process(parent.popen.pid).children(recursive=True)
        assert "windows@%h" in worker.cmdline()
        os.killpg(parent.popen.pid, signal.SIGINT)  # as Ctrl-C does
        parent.popen.wait(60)
        assert not worker.is_running()
    assert "(solo)" in parent.output
    assert "Warm shutdown" in parent.output
    assert "Traceback" not in parent.output
