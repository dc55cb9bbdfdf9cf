"""gunicorn's asyncio worker, with limits for connections that send no request."""

from __future__ import annotations

import asyncio
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

# From the first byte of a request, or the connection itself, until its headers are complete.
HEAD_SECONDS = 10
CLOSE_IDLE_SECONDS = 0.1


class Protocol(ASGIProtocol):  # type: ignore[misc] # it has no types
    """A connection. While it waits for a request's headers, it is in `worker.waiting`."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.worker.make_room()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self in self.worker.waiting and self._head_timer is None:
            self._await_head()
        super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(error)

    def _await_head(self) -> None:
        self.worker.waiting[self] = None
        self._head_timer = self.worker.loop.call_later(HEAD_SECONDS, self.close)

    def _stop_waiting(self) -> None:
        self.worker.waiting.pop(self, None)
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_headers_complete(self) -> Any:
        self._stop_waiting()
        return super()._on_headers_complete()

    def _arm_keepalive_timer(self) -> None:
        """After a response: the connection may be idle for `keepalive` seconds."""
        super()._arm_keepalive_timer()
        self.worker.waiting[self] = None

    def close(self) -> None:
        self._keepalive_timeout()


# gunicorn has no setting for the class.
gasgi.ASGIProtocol = Protocol


class Worker(gasgi.ASGIWorker):  # type: ignore[misc] # it has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[Protocol, None] = {}
        """Connections without a request, those that wait for longest first."""

    def make_room(self) -> None:
        """Close the connection that has been waiting for longest if there are too many."""
        if self.nr_conns > self.worker_connections and self.waiting:
            next(iter(self.waiting)).close()

    async def _shutdown(self) -> None:
        """Let requests in progress end; connections without a request do not hold this up."""
        closing = self.loop.create_task(self._close_waiting())
        await super()._shutdown()
        closing.cancel()

    async def _close_waiting(self) -> None:
        while True:
            for connection in list(self.waiting):
                connection.close()
            await asyncio.sleep(CLOSE_IDLE_SECONDS)
