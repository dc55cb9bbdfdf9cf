"""Users take turns: waiting rows are served in the order of a number, their `turn`.

This is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). A user's rows get growing
turns. The first row of a user who has none waiting gets the turn that is being served, so it comes
before all rows that others have waiting beyond their next. A user with many rows then delays another
user by what is in service, whatever the number of rows. Rows of one turn are served in the order in
which they were written.

Turns are compared within one table only. Two users who write at the same moment may get the same
turn; a user's own rows may, too.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Max, Min, QuerySet


def first_turn(in_service: QuerySet[Any], waiting: QuerySet[Any], own: QuerySet[Any]) -> int:
    """The turn of the next row of a user, from the rows in service, the waiting rows of everybody,
    and the user's own waiting rows.

    Each queryset must be bounded or read one end of an index on `turn`.
    """
    current = in_service.aggregate(turn=Max("turn"))["turn"]
    if current is None:
        current = waiting.aggregate(turn=Min("turn"))["turn"] or 0
    last = own.aggregate(turn=Max("turn"))["turn"]
    return int(current if last is None else max(current, last + 1))
