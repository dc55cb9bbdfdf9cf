"""Does PostgreSQL answer, with the extension, the tables and the clock that Scribes needs?"""

from __future__ import annotations

import re
import time

from django.conf import settings
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from scribes.monitoring.probes.addresses import START_EMBEDDED, is_embedded
from scribes.monitoring.probes.registry import ProbeFailed, mask_passwords, register

OLDEST_PGVECTOR = (0, 8)
MAX_CLOCK_SECONDS = 5
MAX_NAMED_MIGRATIONS = 5

# What libpq says, what that means, and what fixes it if the server is not the embedded one.
KNOWN_PROBLEMS = (
    (
        r"password authentication failed|no password supplied|role .* does not exist|pg_hba",
        "rejects the user or the password",
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
        "is on a host whose name cannot be resolved",
        "correct the host in DATABASE_URL",
    ),
    (
        r"refused|No such file|not exist",
        "does not accept connections: it is not running, or not at this address",
        "sudo systemctl start postgresql, or correct DATABASE_URL",
    ),
)


@register("PostgreSQL", group="database", critical=True)
def postgres() -> str:
    try:
        version = select_value("SHOW server_version")
    except OperationalError as error:
        raise _failure(str(error)) from error
    return f"{version} at {database_location()}"


def _failure(message: str) -> ProbeFailed:
    known = (
        (problem, fix)
        for pattern, problem, fix in KNOWN_PROBLEMS
        if re.search(pattern, message, re.IGNORECASE)
    )
    unknown = f"cannot be used: {mask_passwords(message)}", "see the message"
    problem, fix = next(known, unknown)
    if is_embedded(settings.DATABASE_URL):
        fix = START_EMBEDDED
    database = connection.settings_dict
    fix = fix.format(name=database["NAME"], port=database["PORT"] or 5432)
    return ProbeFailed(f"PostgreSQL {problem}", database_location(), fix)


def database_location() -> str:
    return f"{mask_passwords(settings.DATABASE_URL)} (DATABASE_URL)"


def select_value(query: str) -> object:
    """The first column of the first row; None if there is no row."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return row[0] if row else None


@register("vector extension", group="database", needs=["PostgreSQL"], critical=True)
def vector_extension() -> str:
    version = select_value("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    name = connection.settings_dict["NAME"]
    if version is None:
        raise ProbeFailed(
            "The database has no vector extension", database_location(), _how_to_install(name)
        )
    if tuple(map(int, str(version).split(".")[:2])) < OLDEST_PGVECTOR:
        raise ProbeFailed(
            f"The vector extension {version} is too old: Scribes needs 0.8",
            database_location(),
            f"install pgvector 0.8, then: psql {name} -c 'ALTER EXTENSION vector UPDATE'",
        )
    return f"pgvector {version}"


def _how_to_install(name: str) -> str:
    if select_value("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"):
        return f"as a superuser: psql {name} -c 'CREATE EXTENSION vector'"
    return "install pgvector on the server: sudo apt install postgresql-18-pgvector"


@register("migrations", group="database", needs=["PostgreSQL"], critical=True)
def migrations() -> str:
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        names = [f"{migration.app_label}.{migration.name}" for migration, _ in missing]
        rest = len(names) - MAX_NAMED_MIGRATIONS
        named = ", ".join(names[:MAX_NAMED_MIGRATIONS]) + (f" and {rest} more" if rest > 0 else "")
        raise ProbeFailed(
            f"Migrations are missing: {named}", database_location(), "python manage.py migrate"
        )
    return "all are applied"


@register("clock", group="database", needs=["PostgreSQL"])
def clock() -> str:
    before = time.time()
    database_time = float(str(select_value("SELECT extract(epoch FROM statement_timestamp())")))
    difference = abs(database_time - (before + time.time()) / 2)
    if difference > MAX_CLOCK_SECONDS:
        raise ProbeFailed(
            f"The clocks of this machine and of PostgreSQL differ by {difference:.0f} s",
            "this machine, or the database's",
            "sudo timedatectl set-ntp true, on both",
        )
    return f"differs from PostgreSQL's by {difference:.1f} s"
