"""Users take turns: waiting rows are served in the order of a number, their `turn`.

This is a form of start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). A row gets its turn
when it joins the line. Each row of a user comes its cost after the user's previous one. A user who has
none in line is a newcomer, whose row comes shortly after the rows that are being served, and so before
the next row of all others. A user with many rows then delays a newcomer by what is in service, whatever
the number of rows.

Each newcomer moves the line on by a part of its cost. So a stream of newcomers delays a user's next
row by NEWCOMERS rows, and does not starve the user.

Turns are compared within one table only. Rows of one turn are served in the order in which they were
written. Two transactions at the same moment may give the same turn.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet, Value

NEWCOMERS = 16


def first_turn(
    in_service: QuerySet[Any], waiting: QuerySet[Any], own: QuerySet[Any], cost: int = NEWCOMERS
) -> int:
    """The turn of the next row of a user, from the rows in service, the waiting rows of everybody,
    and the user's own rows in line. `cost` is at least NEWCOMERS.

    Each queryset must be bounded or read one end of an index on `turn`.
    """
    ends = _end("current", in_service, "-turn").union(
        _end("next", waiting, "turn"), _end("last", own, "-turn"), all=True
    )
    turns: dict[str, int] = dict(ends)
    current = turns.get("current", turns.get("next", 0))
    turn = current + cost // NEWCOMERS
    return max(turn, turns["last"] + cost) if "last" in turns else turn


def _end(name: str, rows: QuerySet[Any], order: str) -> QuerySet[Any, Any]:
    """(name, turn) of the first row in this order, if there is one."""
    named = rows.filter(turn__isnull=False).annotate(end=Value(name))
    first: QuerySet[Any, Any] = named.order_by(order).values_list("end", "turn")[:1]
    return first


def is_newcomer(turn: int, current: int | None, cost: int = NEWCOMERS) -> bool:
    """Whether a waiting row with this turn and cost is that of a newcomer. `current` is the largest
    turn in service, if there is one."""
    return current is None or turn <= current + cost // NEWCOMERS
