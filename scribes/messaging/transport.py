"""kombu's transport over Redis: the queue `control` comes first, and one bug is fixed."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis
from kombu.utils.scheduling import round_robin_cycle
from redis.exceptions import ConnectionError


class Channel(redis.Channel):
    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Raise ConnectionError when the channel's connection is already closed.

        A channel can outlive its connection: when Redis dies while kombu cleans up a lost
        connection, or when a message is acknowledged that came over an earlier connection. kombu 5.7
        then raises AttributeError, which ends the worker. With ConnectionError the worker reconnects,
        and Redis delivers the message again, which is harmless.
        """
        if getattr(self.connection, "client", None) is None:
            raise ConnectionError("The connection of this channel has been closed.")
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]
        return parameters


class ControlFirst(round_robin_cycle):  # type: ignore[type-arg]
    """The order in which a worker looks at its queues: `control` first, and the others in turn.

    Messages in `control` are few and their work is short, so the others do not starve.
    """

    def consume(self, n: int) -> Any:
        return sorted(super().consume(n), key=lambda queue: queue != "control")


class Transport(redis.Transport):
    Channel = Channel
