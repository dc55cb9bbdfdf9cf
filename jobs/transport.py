"""kombu's transport over Redis, with one fault mended."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError


class Channel(redis.Channel):
    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """A channel may outlive its connection: when Redis dies while a lost connection to it is
        being cleared away, or when a message is acknowledged that came over an earlier one.

        kombu 5.7 then raises an AttributeError, which ends the worker. As a ConnectionError it is
        one more sign that the connection is gone; the message comes again, which is harmless.
        """
        if getattr(self.connection, "client", None) is None:
            raise ConnectionError("The connection of this channel has been closed.")
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)  # type: ignore[misc]
        return parameters


class Transport(redis.Transport):
    Channel = Channel
