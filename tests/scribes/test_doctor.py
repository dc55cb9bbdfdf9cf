"""`manage.py doctor`. The faults are real, and each run finds several of them at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from django.conf import settings
from django.db import connection
from django.utils import timezone

from scribes.embedded.ports import free_port
from scribes.management.commands.doctor import summary
from scribes.models import Heartbeat, User
from tests.helpers.databases import database_called, maintenance, url_of
from tests.helpers.factories import make_job
from tests.helpers.processes import LONGEST_WAIT_SECONDS, manage
from tests.helpers.valkey import Valkey

# They need the migrated test database and leave it as it was.
pytestmark = pytest.mark.django_db

Fault = dict[str, str]


def doctors_faults(**variables: str) -> dict[str, Fault]:
    """The faults that doctor reports, by the name of the probe."""
    result = manage("doctor", "--json", **variables)
    assert result.returncode == 1, result.stdout + result.stderr
    reports = json.loads(result.stdout)
    assert all(set(r) == {"name", "state", "message", "location", "fix"} for r in reports)
    return {report["name"]: report for report in reports if report["state"] == "fault"}


def assert_fault(fault: Fault, message: str, location: str, fix: str) -> None:
    """Check that the fault's message, location and fix contain these texts."""
    for key, text in (("message", message), ("location", location), ("fix", fix)):
        assert text in fault[key], fault


# --- A new machine --------------------------------------------------------------------------


@pytest.fixture
def new_machine(tmp_path: Path) -> dict[str, str]:
    """Variables of a machine without servers and a model, and with typos in its .env."""
    file = tmp_path / "scribes.env"
    file.write_text("# comment\nREDIS_ULR=redis://localhost\nexport JOB_TIMEOUTS = 5\n")
    port = free_port()
    return {
        "DATABASE_URL": f"postgresql://scribes:s3cret@127.0.0.1:{port}/scribes",
        "REDIS_URL": f"redis://:s3cret@127.0.0.1:{port}/0",
        "EMAIL_URL": f"smtp://me:s3cret@127.0.0.1:{port}",
        "EMBEDDING_MODEL": str(tmp_path / "model"),
        "ENV_FILE": str(file),
        "DISK_MIN_FREE_MB": "999999999",
        "MEMORY_MIN_FREE_MB": "999999999",
    }


def test_doctor_finds_everything_that_a_new_machine_lacks(new_machine: dict[str, str]):
    faults = doctors_faults(**new_machine)
    masked = {name: url.replace("s3cret", "***") for name, url in new_machine.items()}
    database, redis = masked["DATABASE_URL"], masked["REDIS_URL"]
    assert_fault(faults["PostgreSQL"], "not running", database, "systemctl start postgresql")
    assert_fault(faults["Redis"], "not running", redis, "systemctl start redis")
    assert_fault(faults["mail server"], "refused", masked["EMAIL_URL"], "correct EMAIL_URL")
    model = new_machine["EMBEDDING_MODEL"]
    assert_fault(faults["embedding model"], "lacks model.safetensors", model, "EMBEDDING_MODEL")
    typo = "REDIS_ULR is not a variable of Scribes; did you mean REDIS_URL?"
    assert_fault(faults["environment"], typo, new_machine["ENV_FILE"], ".env.example")
    assert "did you mean JOB_TIMEOUT_SECONDS?" in faults["environment"]["message"]
    assert_fault(faults["disk"], "MB are free", "/", "du -xh")
    assert_fault(faults["memory"], "MB of memory are free", "this machine", "WORKER_CONCURRENCY")
    # Faults that only follow from others are not reported.
    assert len(faults) == 7
    assert "s3cret" not in json.dumps(faults)


def test_doctor_prints_each_problem_with_its_place_and_fix(new_machine: dict[str, str]):
    result = manage("doctor", **new_machine)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    (number,) = (n for n, line in enumerate(lines) if line.startswith("✘ PostgreSQL "))
    assert lines[number].endswith("it is not running, or not at this address")
    place, fix = lines[number + 1 : number + 3]
    assert place.startswith("    where: postgresql://scribes:***@127.0.0.1:")
    assert fix == "    fix:   sudo systemctl start postgresql, or correct DATABASE_URL"
    assert "· migrations           skipped: it needs PostgreSQL" in lines
    assert lines[-2:] == ["", "7 problems found."]
    assert "s3cret" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("faults", "text"),
    [(0, "No problems found."), (1, "1 problem found."), (2, "2 problems found.")],
)
def test_doctor_summary_counts_problems(faults: int, text: str):
    assert summary(faults) == text


# --- Servers --------------------------------------------------------------------------------


@contextmanager
def user_with_password(name: str) -> Iterator[None]:
    """A user of the embedded PostgreSQL who needs a password; all others need none."""
    with maintenance() as server:
        row = server.execute("SHOW hba_file").fetchone()
        assert row
        file = Path(row[0])
        before = file.read_text()
        server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'right'")
        file.write_text(f"local all {name} scram-sha-256\n{before}")
        server.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            file.write_text(before)
            server.execute("SELECT pg_reload_conf()")
            server.execute(f"DROP ROLE {name}")


def test_doctor_finds_wrong_passwords(tmp_path: Path):
    valkey = Valkey(tmp_path / "own", "--requirepass", "right")
    try:
        with user_with_password("locked_out"):
            faults = doctors_faults(
                DATABASE_URL=f"{url_of('postgres', 'locked_out')}&password=s3cret",
                REDIS_URL=f"{valkey.url}?password=s3cret",
            )
    finally:
        valkey.kill()
    postgres, redis = faults["PostgreSQL"], faults["Redis"]
    assert_fault(postgres, "rejects the user or the password", "***", "DATABASE_URL")
    assert_fault(redis, "rejects the password", "***", "REDIS_URL")
    assert "s3cret" not in json.dumps(faults)


def test_doctor_finds_a_missing_database_and_hanging_servers(valkey: Valkey, silent_port: int):
    valkey.freeze()
    faults = doctors_faults(
        DATABASE_URL=url_of("nowhere"),
        REDIS_URL=valkey.url,
        EMAIL_URL=f"smtp://127.0.0.1:{silent_port}",
    )
    create = "createdb --owner scribes nowhere"
    assert_fault(faults["PostgreSQL"], "no such database", "nowhere", create)
    assert_fault(faults["Redis"], "does not answer in time", valkey.url, "INFO")
    assert_fault(faults["mail server"], "timed out", str(silent_port), "EMAIL_URL")


def test_doctor_finds_an_empty_database_and_an_evicting_redis(valkey: Valkey):
    valkey.client().config_set("maxmemory-policy", "allkeys-lru")
    with database_called("empty") as url:
        faults = doctors_faults(DATABASE_URL=url, REDIS_URL=valkey.url)
    extension, migrations = faults["vector extension"], faults["migrations"]
    create = "psql empty -c 'CREATE EXTENSION vector'"
    assert_fault(extension, "no vector extension", "/empty", create)
    assert_fault(migrations, "auth.0001_initial", "/empty", "python manage.py migrate")
    set_policy = "CONFIG SET maxmemory-policy noeviction"
    policy = "eviction policy is allkeys-lru"
    assert_fault(faults["Redis keeps messages"], policy, valkey.url, set_policy)


def test_doctor_finds_a_hanging_postgres_and_a_full_queue(valkey: Valkey, silent_port: int):
    key = f"{settings.REDIS_KEY_PREFIX}embeddings"
    valkey.client().rpush(key, *["{}"] * 1001)
    url = f"postgresql://u:p@127.0.0.1:{silent_port}/db?connect_timeout=2"
    faults = doctors_faults(DATABASE_URL=url, REDIS_URL=valkey.url)
    assert_fault(faults["PostgreSQL"], "does not answer in time", "u:***@", str(silent_port))
    waiting = "1001 messages wait in the queue embeddings"
    assert_fault(faults["queues"], waiting, "QUEUE_FULL_LENGTH", "run_worker")


SLOW_CLOCK = """
CREATE SCHEMA slow;
CREATE FUNCTION slow.statement_timestamp() RETURNS timestamptz LANGUAGE sql
    AS $$ SELECT pg_catalog.statement_timestamp() - interval '1 hour' $$;
"""


@pytest.fixture
def damaged_database() -> Iterator[str]:
    """The URL of the test database without a migration and with a slow clock."""
    name = connection.settings_dict["NAME"]
    forget = "DELETE FROM django_migrations WHERE app = 'reminders' RETURNING app, name, applied"
    with psycopg.connect(settings.DATABASE_URL, dbname=name, autocommit=True) as database:
        database.execute(SLOW_CLOCK)
        rows = database.execute(forget).fetchall()
        try:
            yield f"{url_of(name)}&options=-csearch_path%3Dslow,pg_catalog,public"
        finally:
            database.execute("DROP SCHEMA slow CASCADE")
            insert = "INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)"
            database.cursor().executemany(insert, rows)


def test_doctor_finds_a_missing_migration_and_a_foreign_redis(
    damaged_database: str, valkey: Valkey
):
    owner_key = f"{settings.REDIS_KEY_PREFIX}database"
    valkey.client().set(owner_key, "another database")
    faults = doctors_faults(DATABASE_URL=damaged_database, REDIS_URL=valkey.url)
    missing = "Migrations are missing: reminders.0001_initial"
    name = connection.settings_dict["NAME"]
    assert_fault(faults["migrations"], missing, name, "python manage.py migrate")
    assert_fault(faults["Redis owner"], "another database", valkey.url, f"DEL {owner_key}")
    assert_fault(faults["clock"], "differ by 3600 s", "the database's", "timedatectl")


# --- Work that is left undone ---------------------------------------------------------------


@contextmanager
def mail_server_without_users() -> Iterator[int]:
    """A mail server that lets nobody sign in; its port."""
    controller = Controller(
        object(),
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=lambda *_: AuthResult(success=False, handled=False),
        auth_require_tls=False,
        ready_timeout=LONGEST_WAIT_SECONDS,
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@pytest.mark.django_db(transaction=True)
def test_doctor_finds_waiting_work_and_a_full_redis(alice: User, valkey: Valkey):
    make_job(alice, minutes_ago=10)
    Heartbeat.objects.create(name="sweep", process="x", at=timezone.now() - timedelta(hours=1))
    client = valkey.client()
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.05))
    with mail_server_without_users() as port:
        email_url = f"smtp://me:s3cret@127.0.0.1:{port}"
        faults = doctors_faults(REDIS_URL=valkey.url, EMAIL_URL=email_url)
    jobs, sweep = faults["waiting jobs"], faults["reminder sweep"]
    assert_fault(jobs, "has been queued for 10 min", "background_jobs", "run_worker")
    assert_fault(sweep, "was 60 min ago", "queue control", "restart scribes-beat")
    full = "almost full"
    assert_fault(faults["Redis keeps messages"], full, valkey.url, "CONFIG SET maxmemory")
    rejected = "rejects the user or the password"
    assert_fault(faults["mail server"], rejected, "me:***@", "EMAIL_URL")
    assert "s3cret" not in json.dumps(faults)
