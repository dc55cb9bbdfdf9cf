"""SQL that Django's ORM cannot express, or not fast enough."""

from __future__ import annotations

from typing import Any

from django.db import connection

from notes.embeddings.engines import Vectors


def fetch_rows(statement: str, parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def vector_literal(vector: Vectors) -> str:
    """The vector in pgvector's text format."""
    numbers = ",".join(["%.6g"] * len(vector)) % tuple(vector.tolist())
    return f"[{numbers}]"
