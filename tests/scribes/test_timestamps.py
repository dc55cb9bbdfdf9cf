from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DataError, connection
from psycopg.pq import Format

from scribes.models import User
from scribes.timestamps import UtcLoader

MOMENTS = (
    datetime.min.replace(tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    datetime(2026, 11, 24, 7, 5, 3, 100, UTC),
    datetime(2026, 11, 24, 7, 5, 3, 250_000, UTC),
    datetime.max.replace(tzinfo=UTC),
)


@pytest.mark.django_db
@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_what_is_stored_comes_back(alice: User, moment: datetime):
    User.objects.filter(pk=alice.pk).update(last_login=moment)
    alice.refresh_from_db()
    assert alice.last_login is not None
    assert (alice.last_login, alice.last_login.utcoffset()) == (moment, timedelta(0))


@pytest.mark.django_db
def test_django_leaves_it_be():
    """It sets a loader of its own before a query, where it finds one of another time zone."""
    User.objects.first()
    loader = connection.connection.adapters.get_loader(
        connection.connection.adapters.types["timestamptz"].oid, Format.TEXT
    )
    assert loader is UtcLoader


def select(expression: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {expression}")
        return cursor.fetchone()[0]


@pytest.mark.django_db
def test_what_no_datetime_can_be_is_an_error():
    assert select("NULL::timestamptz") is None
    assert select("'2026-11-24 07:05+05:45'::timestamptz") == datetime(
        2026, 11, 24, 1, 20, tzinfo=UTC
    )
    for text in ("infinity", "10000-01-01", "0044-03-15 BC"):
        with pytest.raises(DataError):
            select(f"'{text}'::timestamptz")
