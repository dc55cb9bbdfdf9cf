"""Whole databases on the test server: other ones than the test database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
from django.conf import settings


@contextmanager
def maintenance() -> Iterator[psycopg.Connection]:
    """A connection to the server's database `postgres`, for statements about databases and users."""
    with psycopg.connect(settings.DATABASE_URL, dbname="postgres", autocommit=True) as server:
        yield server


@contextmanager
def database_called(name: str) -> Iterator[str]:
    """Create an empty database for the length of a with block; its URL."""
    with maintenance() as server:
        server.execute(f'CREATE DATABASE "{name}"')
        try:
            yield url_of(name)
        finally:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def url_of(name: str, user: str = "") -> str:
    """The URL of a database on the test server, for another user if one is named."""
    url = urlsplit(settings.DATABASE_URL)
    query = url.query.replace("user=scribes", f"user={user}") if user else url.query
    return f"{url.scheme}://{url.netloc}/{name}" + (f"?{query}" if query else "")
