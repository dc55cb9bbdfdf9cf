"""The order in which a worker looks into its queues."""

from __future__ import annotations

from kombu.utils.scheduling import round_robin_cycle

FIRST = "control"


class ControlFirst(round_robin_cycle):  # type: ignore[type-arg] # only its stub is generic
    """The queue `control` first, and then the others, which take turns.

    `control` has short work only. While it is never empty, the other queues wait.
    """

    def consume(self, n: int) -> list[str]:  # type: ignore[override] # kombu returns a list, too
        # Sorting is stable, so the others keep their order: the one that was used last is at the end.
        return sorted(super().consume(n), key=lambda queue: queue != FIRST)
