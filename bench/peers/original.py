"""Regeneration as the guide of the first Scribes has it: the notes in pages of 100 by OFFSET, the
model called once a note, and the note's row updated with its vector."""

from __future__ import annotations

from typing import Any

from django.db import connection
from sentence_transformers import SentenceTransformer

from scribes.models import User

PAGE = 100
TABLE = """
DROP TABLE IF EXISTS original_notes;
CREATE TABLE original_notes (id bigint PRIMARY KEY, user_id bigint, content text,
    embedding vector(384));
INSERT INTO original_notes SELECT id, user_id, content FROM notes
WHERE user_id = %(user)s ORDER BY id LIMIT %(notes)s;
CREATE TABLE IF NOT EXISTS original_jobs (processed int);
TRUNCATE original_jobs;
INSERT INTO original_jobs VALUES (0);
"""


def prepare(user: User, notes: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(TABLE, {"user": user.pk, "notes": notes})


def regenerate(model: SentenceTransformer) -> None:
    """It skips notes, as the first Scribes did: rows that were updated change places."""
    offset = 0
    while page := _rows("SELECT id, content FROM original_notes LIMIT %s OFFSET %s", PAGE, offset):
        for note, content in page:
            vector = str(model.encode(content).tolist())
            _execute("UPDATE original_notes SET embedding = %s WHERE id = %s", vector, note)
        _execute("UPDATE original_jobs SET processed = processed + %s", len(page))
        offset += PAGE


def _execute(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def _rows(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
