"""kombu's transport over Redis, for a worker that survives bad messages and Redis's error replies.

With kombu's own, one message that is not JSON ends the worker, and so does one error reply of Redis,
as when its memory is full. Here, a message that cannot be read is dropped. After an error reply the
worker connects again, until Redis takes writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from celery import current_app
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ConnectionError, OutOfMemoryError, RedisError, ResponseError

from scribes.messaging import message_check, unreadable

logger = logging.getLogger(__name__)

# The stubs of kombu lack much of it.
redis: Any = kombu_redis

# Those of Celery's own messages: questions of `inspect` with their answers, and events.
OTHER_EXCHANGES = {"celery.pidbox", "reply.celery.pidbox", "celeryev"}


class Client(redis.PrefixedStrictRedis):  # type: ignore[misc]
    """Drops messages that cannot be read as they arrive, and then answers as if there were none."""

    def __init__(self, channel: Channel, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._channel = channel

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        reply = super().parse_response(connection, command_name, **options)
        if command_name == "BRPOP" and reply:
            return reply if self._channel.can_read(*reply) else None
        return reply


class QoS(redis.QoS):  # type: ignore[misc]
    """Notes in Redis which messages the worker has, as far as Redis takes that.

    Without a note, a message is not delivered again if the worker dies. The rows make up for that.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        """A full Redis keeps no note, but it hands out messages: taking them frees its memory."""
        try:
            super().append(message, delivery_tag)
        except OutOfMemoryError:
            logger.warning("Redis is full: it does not note that a message was taken")
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """If Redis refuses, the message is delivered again, but the process takes another one."""
        try:
            super().ack(delivery_tag)
        except ResponseError as error:
            logger.warning("Redis refused an acknowledgement: %s", error)
            virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """If Redis refuses, the message is delivered again after the visibility timeout."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        except ResponseError as error:
            logger.warning("Redis refused to take a message back: %s", error)
            virtual.QoS.ack(self, delivery_tag)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """A full Redis refuses the lock for it. It is tried again every 10 s."""
        try:
            super().restore_visible(*args, **kwargs)
        except OutOfMemoryError as error:
            logger.debug("Unacknowledged messages were not restored: %s", error)


class Channel(redis.Channel):  # type: ignore[misc]
    QoS = QoS

    def __init__(self, *args: Any, **options: Any) -> None:
        """Raises ResponseError if Redis takes no writes: a worker then waits before it tries again."""
        super().__init__(*args, **options)
        try:
            self._check_keys()
        except Exception:
            self.connection.cycle.discard(self)
            self._disconnect_pools()
            raise

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Raise ConnectionError when the channel's connection is already closed.

        A channel can outlive its connection: when Redis dies while kombu cleans up a lost
        connection, or when a message is acknowledged that came over an earlier connection. kombu 5.7
        then raises AttributeError, which ends the worker. With ConnectionError the worker reconnects,
        and Redis delivers the message again, which is harmless.
        """
        if getattr(self.connection, "client", None) is None:
            raise ConnectionError("The connection of this channel has been closed.")
        parameters: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        return parameters

    def _get_client(self) -> Callable[..., Client]:
        return partial(Client, self, global_keyprefix=self.global_keyprefix)

    # --- Messages ---------------------------------------------------------------------------

    def can_read(self, key: bytes, text: bytes) -> bool:
        """Whether kombu and Celery can read this message of a queue. If not, it is dropped."""
        # A key may also have a priority.
        queue = key.decode().rsplit(self.sep, 1)[0]
        try:
            message = self.Message(loads(text), channel=self)
            message_check.check(message, is_task=queue in current_app.amqp.queues)
        except Exception as error:  # noqa: BLE001 a message can be wrong in any way
            unreadable.drop(queue, error, text)
            return False
        return True

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        """Deliver a message to all workers, such as an event. It is dropped if it cannot be read."""
        try:
            return bool(super()._deliver_fanout_message(message, exchange))
        except (RedisError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 a message can be wrong in any way
            unreadable.drop(exchange, error, message)
            return False

    # --- Keys -------------------------------------------------------------------------------

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Record which messages a queue gets. A full Redis refuses that, but a worker must be able to
        start: its work frees memory.

        The record is not needed if it is there already, as with Scribes' own queues, nor for messages
        to all workers. Without it, the answers to this worker's own questions to others are lost.
        """
        try:
            super()._queue_bind(exchange, routing_key, pattern, queue)
        except OutOfMemoryError:
            bound = {name for *_, name in self.get_table(exchange)}
            if queue in current_app.amqp.queues and queue not in bound:
                raise

    def _check_keys(self) -> None:
        """Delete keys that somebody has made of a wrong type, and try whether Redis takes writes."""
        types = self._types()
        with self.client.pipeline(transaction=False) as pipe:
            for key in types:
                pipe.type(f"{self.global_keyprefix}{key}")
            found = [bytes_to_str(name) for name in pipe.execute()]
        for (key, expected), name in zip(types.items(), found, strict=True):
            if name not in (expected, "none"):
                unreadable.drop(key, TypeError(f"the key is a {name}, not a {expected}"), "")
                self.client.delete(key)
        # A write that changes nothing. A full Redis takes it, too.
        self.client.hdel(self.unacked_key, "")

    def _types(self) -> dict[str, str]:
        """The type of each key that a worker uses, by its name without the prefix."""
        queues = current_app.amqp.queues
        exchanges = {queue.exchange.name for queue in queues.values()} | OTHER_EXCHANGES
        bindings = (self.keyprefix_queue, self.keyprefix_binding_permanent)
        return {
            **{
                self._q_for_pri(name, step): "list"
                for name in queues
                for step in self.priority_steps
            },
            **{prefix % exchange: "set" for prefix in bindings for exchange in exchanges},
            self.keyprefix_binding_deadlines: "zset",
            self.unacked_key: "hash",
            self.unacked_index_key: "zset",
            self.unacked_mutex_key: "string",
        }


class Transport(redis.Transport):  # type: ignore[misc]
    Channel = Channel
    # After a connection error, a worker connects again; at any other error, it ends.
    connection_errors = (*redis.Transport.connection_errors, ResponseError)
