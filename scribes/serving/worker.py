"""gunicorn's asyncio worker, with limits for clients that are slow or do nothing.

gunicorn limits the size of a request's headers, the time between two requests (`keepalive`), and how
much of a connection it holds in memory. The limits here are added to these.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from scribes.api.problems import PROBLEM_TYPE, RETRY_AFTER_SECONDS, problem_body

# From the first byte of a request, or from the connection itself, until its headers are complete.
HEAD_SECONDS = 10
# A client must read at least what asyncio buffers for it (64 KB) in this time.
READ_SECONDS = 30
# What the operating system buffers for a client. Linux would take 4 MB of a response that is not read.
SEND_BUFFER_BYTES = 128 * 1024
# While the server stops, no client is waited for longer. Requests in progress have `graceful_timeout`.
STOP_SECONDS = 3
# All limits of gunicorn together would allow 800 KB.
MAX_HEAD_BYTES = 64 * 1024


class Connection(ASGIProtocol):  # type: ignore[misc] # it has no types
    """One client. While it waits for a request's headers, it is in `worker.waiting`."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.worker.connections.add(self)
        self._await_head()
        self.worker.make_room(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.worker.connections.discard(self)
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(error)

    # --- A request's headers ----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self in self.worker.waiting:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._await_head()
        super().data_received(data)
        if self in self.worker.waiting and self._head_bytes > MAX_HEAD_BYTES:
            self.refuse(431, f"The headers are larger than {MAX_HEAD_BYTES:,} bytes.")

    def _await_head(self) -> None:
        self.worker.waiting[self] = None
        self._head_timer = self._later(HEAD_SECONDS, self.close)

    def _stop_waiting(self) -> None:
        self.worker.waiting.pop(self, None)
        self._head_bytes = 0
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_headers_complete(self) -> Any:
        self._stop_waiting()
        return super()._on_headers_complete()

    def _arm_keepalive_timer(self) -> None:
        """gunicorn calls this after a response: the connection waits for the next request."""
        super()._arm_keepalive_timer()
        self.worker.waiting[self] = None

    # --- A client that does not read --------------------------------------------------------

    def pause_writing(self) -> None:
        """asyncio calls this when its buffer for the client is full."""
        super().pause_writing()
        self._read_timer = self._later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._read_timer:
            self._read_timer.cancel()

    # --- The end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection while it waits for a request."""
        self._keepalive_timeout()

    def refuse(self, status: int, detail: str) -> None:
        self._send_error_response(status, detail)
        self.close()

    def stop(self) -> None:
        """The server stops: close the connection, unless a request is in progress."""
        if self in self.worker.waiting:
            self.close()
        elif not self._is_working():
            self._later(STOP_SECONDS, self._abort_unless_working)

    def _is_working(self) -> bool:
        """Whether Scribes, and not the client, is waited for."""
        receiver = self._body_receiver
        is_complete = receiver is not None and receiver._complete
        return is_complete and not self.transport.get_write_buffer_size()

    def _abort_unless_working(self) -> None:
        if not self._is_working():
            self.transport.abort()

    def _close_transport(self) -> None:
        """Close the connection. It would stay open for as long as the client does not read the rest."""
        super()._close_transport()
        if self.transport.get_write_buffer_size():
            self._later(READ_SECONDS, self.transport.abort)

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        """Answer a request that is malformed or refused. gunicorn would answer with plain text."""
        body = json.dumps(problem_body(status, message, [])).encode()
        headers = {
            **dict(extra_headers),
            "Content-Type": PROBLEM_TYPE,
            "Content-Length": len(body),
            "Connection": "close",
            **({"Retry-After": RETRY_AFTER_SECONDS} if status == 503 else {}),
        }
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._safe_write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def _later(self, seconds: float, call: Any) -> asyncio.TimerHandle:
        handle: asyncio.TimerHandle = self.worker.later(seconds, call)
        return handle


class Worker(gasgi.ASGIWorker):  # type: ignore[misc] # it has no types
    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[Connection] = set()
        self.waiting: dict[Connection, None] = {}
        """Connections without a request, those that wait for longest first."""

    def later(self, seconds: float, call: Any) -> asyncio.TimerHandle:
        """Call `call` after this time. While the server stops, call it after STOP_SECONDS at most."""
        handle: asyncio.TimerHandle = self.loop.call_later(
            seconds if self.alive else min(seconds, STOP_SECONDS), call
        )
        return handle

    def make_room(self, newest: Connection) -> None:
        """If there are too many connections, close the one that has waited longest for a request."""
        if self.nr_conns <= self.worker_connections:
            return
        oldest = next(iter(self.waiting))
        if oldest is newest:  # all others have requests in progress
            newest.refuse(503, "The server has too many connections. Try again later.")
        else:
            oldest.close()

    async def _serve(self) -> None:
        """Serve until SIGTERM. gunicorn's own method has no way to name another class of connections."""
        for listener in self.sockets:
            # Its connections inherit this.
            listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            # asyncio accepts up to `backlog` connections at a time. One leaves some to other processes.
            server = await self.loop.create_server(
                partial(Connection, self), sock=listener.sock, backlog=1
            )
            listener.sock.listen(self.cfg.backlog)
            self.servers.append(server)
        while self.alive and self.ppid == os.getppid():
            self.notify()
            await asyncio.sleep(1)
        self.alive = False
        await self._shutdown()

    async def _shutdown(self) -> None:
        """Let requests in progress end. Clients that are slow, or do nothing, do not hold this up."""
        for server in self.servers:
            server.close()
        for connection in list(self.connections):
            connection.stop()
        await super()._shutdown()
