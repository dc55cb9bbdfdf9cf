from __future__ import annotations

from django.db import connection


def is_lock_awaited() -> bool:
    """Whether some session of the database waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])
