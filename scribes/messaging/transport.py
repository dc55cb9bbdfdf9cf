"""kombu's transport over Redis, so that a worker survives what it meets there.

With kombu's own transport, a message that is not JSON ends the worker, and so does an error that Redis
replies while it is full, loading, or read-only.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis, virtual
from kombu.utils.scheduling import round_robin_cycle
from redis.exceptions import ConnectionError, ResponseError

from scribes.messaging.unreadable import count_unreadable

logger = logging.getLogger(__name__)


class ControlFirst(round_robin_cycle):  # type: ignore[type-arg]
    """The order in which a worker looks at its queues: `control` first, and the others in turn.

    Messages in `control` are few and their work is short, so the others do not starve.
    """

    def consume(self, n: int) -> Any:
        return sorted(super().consume(n), key=lambda queue: queue != "control")


class QoS(redis.QoS):
    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, and count it as handled even if Redis refuses.

        Otherwise it would take one of the worker's places for ever. Redis delivers it again after the
        visibility timeout, which is harmless.
        """
        try:
            super().ack(delivery_tag)
        except ResponseError as error:
            logger.warning("Redis refused an acknowledgement: %s", error)
            virtual.QoS.ack(self, delivery_tag)


class Channel(redis.Channel):
    QoS = QoS

    def _brpop_read(self, **options: Any) -> Any:
        """Deliver the next message. One that cannot be read is dropped: the rows say what is to be
        done, and the work that it stood for gets another message."""
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.exception("Dropped a message that cannot be read")
            count_unreadable(error)
            return True

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


class Transport(redis.Transport):
    Channel = Channel
    # A worker waits and connects again after these. A Redis that refuses commands recovers, too: once
    # it has memory or disk space again, has loaded its data, or has a master.
    connection_errors = (*redis.Transport.connection_errors, ResponseError)
