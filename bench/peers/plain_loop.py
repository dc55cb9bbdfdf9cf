"""The straightforward regeneration: pages of 100 notes by OFFSET, one call of the model per note, and
one UPDATE of the note's row."""

from __future__ import annotations

from typing import Any

from django.db import connection
from sentence_transformers import SentenceTransformer

from scribes.models import User

PAGE = 100
TABLE = """
DROP TABLE IF EXISTS plain_notes;
CREATE TABLE plain_notes (id bigint PRIMARY KEY, user_id bigint, content text,
    embedding vector(384));
INSERT INTO plain_notes SELECT id, user_id, content FROM notes
WHERE user_id = %(user)s ORDER BY id LIMIT %(notes)s;
CREATE TABLE IF NOT EXISTS plain_jobs (processed int);
TRUNCATE plain_jobs;
INSERT INTO plain_jobs VALUES (0);
"""


def prepare(user: User, notes: int) -> None:
    """Create its table, with this number of the user's notes."""
    with connection.cursor() as cursor:
        cursor.execute(TABLE, {"user": user.pk, "notes": notes})


def regenerate(model: SentenceTransformer) -> None:
    """It skips notes, because rows that are updated change their places."""
    offset = 0
    while page := _rows("SELECT id, content FROM plain_notes LIMIT %s OFFSET %s", PAGE, offset):
        for note, content in page:
            vector = str(model.encode(content).tolist())
            _execute("UPDATE plain_notes SET embedding = %s WHERE id = %s", vector, note)
        _execute("UPDATE plain_jobs SET processed = processed + %s", len(page))
        offset += PAGE


def _execute(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def _rows(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
