"""How PostgreSQL answers a query: through which index, and how much it reads for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

Plan = dict[str, Any]


def plans_of(call: Callable[[], object], part: str) -> list[list[Plan]]:
    """Of each query with this part that a call makes: the nodes of its plan, after it has run."""
    with CaptureQueriesContext(connection) as queries:
        call()
    return [
        list(_nodes(_explained(q["sql"]))) for q in queries.captured_queries if part in q["sql"]
    ]


def most_rows_read(call: Callable[[], object]) -> float:
    """Of all queries that a call makes: the largest number of rows that a node of a plan has produced or
    thrown away, in all loops."""
    plans = plans_of(call, "SELECT")
    assert plans
    return max(map(_rows_read, plans))


def _rows_read(nodes: list[Plan]) -> float:
    rows: float = max(
        node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for node in nodes
    )
    return rows


def _explained(statement: str) -> Plan:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}")
        answer = cursor.fetchone()[0]
    plan: Plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
    return plan


def _nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def bytes_read(call: Callable[[], object]) -> int:
    """The size of all that the queries of a call return, as text."""
    with CaptureQueriesContext(connection) as queries:
        call()
    return sum(
        _result_size(q["sql"]) for q in queries.captured_queries if q["sql"].startswith("SELECT")
    )


def _result_size(statement: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
    return sum(len(str(value)) for row in rows for value in row)
