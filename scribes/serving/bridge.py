"""Runs a WSGI application in a few threads behind an ASGI server.

The event loop reads the whole request before a thread gets it, and a thread is free again before the
client has read the response. So clients that are slow, or do nothing, cost no thread.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple

from django.conf import settings

from scribes.api.problems import PROBLEM_TYPE, RETRY_AFTER_SECONDS, problem_body
from scribes.serving.environ import wsgi_environ

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Body = SpooledTemporaryFile[bytes]

# A body, or a client that reads a response, must make progress: this time, and a second for each
# MIN_BYTES_PER_SECOND.
PATIENCE_SECONDS = 30
MIN_BYTES_PER_SECOND = 10_000
# Larger requests and responses are kept in temporary files.
MAX_IN_MEMORY_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
# Requests that wait for a thread, for each thread. More would wait for longer than clients do.
MAX_WAITING_PER_THREAD = 25


class Refused(Exception):
    """The request is answered without Django."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Gone(Exception):
    """The client has closed the connection, or does not read."""


class Response(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: Body


class Bridge:
    """An ASGI application around a WSGI application, which `threads` threads run."""

    def __init__(self, application: Callable[..., Any], threads: int) -> None:
        self._application = application
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="django")
        self._unfinished = 0
        self._max_unfinished = threads * (1 + MAX_WAITING_PER_THREAD)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health/live" and scope["method"] in ("GET", "HEAD"):
            # Without a thread: it answers while slow requests have all of them.
            await _send(send, scope, _json_response(200, {"status": "ok"}, "application/json"))
            return
        with SpooledTemporaryFile(MAX_IN_MEMORY_BYTES) as body:
            try:
                await _receive_body(scope, receive, body)
                response = await self._run(scope, body)
            except Refused as refused:
                response = _problem(refused)
            except Gone:
                return
        with response.body:
            await _send(send, scope, response)

    async def _run(self, scope: Scope, body: Body) -> Response:
        if self._unfinished >= self._max_unfinished:
            raise Refused(503, "The server is busy. Try again later.")
        self._unfinished += 1
        try:
            environ = wsgi_environ(scope, body)
            call = asyncio.get_running_loop().run_in_executor(self._pool, self._call, environ)
            # A thread cannot be stopped, so it counts until it has finished.
            return await asyncio.shield(call)
        finally:
            self._unfinished -= 1

    def _call(self, environ: dict[str, Any]) -> Response:
        """In a thread: run the application, and keep its whole response."""
        body: Body = SpooledTemporaryFile(MAX_IN_MEMORY_BYTES)  # noqa: SIM115 _send closes it
        started: list[Response] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            encoded = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers]
            started[:] = [Response(int(status.split(" ", 1)[0]), encoded, body)]
            return body.write

        result = self._application(environ, start_response)
        try:
            for chunk in result:
                body.write(chunk)
        finally:
            if hasattr(result, "close"):
                result.close()
        return started[0]


# --- Requests -------------------------------------------------------------------------------


async def _receive_body(scope: Scope, receive: Receive, body: Body) -> None:
    """Write the request's body into the file. Raises Refused and Gone."""
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    too_large = Refused(413, f"The request body is larger than {limit:,} bytes.")
    if _content_length(scope) > limit:
        raise too_large
    started = time.monotonic()
    has_more = True
    while has_more:
        message = await _in_time(receive(), started, body.tell())
        if message["type"] == "http.disconnect":
            raise Gone
        body.write(message.get("body", b""))
        if body.tell() > limit:
            raise too_large
        has_more = message.get("more_body", False)


def _content_length(scope: Scope) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


async def _in_time(step: Awaitable[Any], started: float, bytes_so_far: int) -> Any:
    """Raises Refused with 408 if the client is slower than allowed."""
    allowed = PATIENCE_SECONDS + bytes_so_far / MIN_BYTES_PER_SECOND
    try:
        return await asyncio.wait_for(step, started + allowed - time.monotonic())
    except TimeoutError as error:
        raise Refused(408, "The request body did not arrive in time.") from error


# --- Responses ------------------------------------------------------------------------------


async def _send(send: Send, scope: Scope, response: Response) -> None:
    """Send the response. The connection is closed if the client does not read it in time."""
    length = response.body.tell()
    response.body.seek(0)
    headers = response.headers
    if not any(name == b"content-length" for name, _ in headers) and _may_have_body(response):
        headers = [*headers, (b"content-length", str(length).encode())]
    start = {"type": "http.response.start", "status": response.status, "headers": headers}
    await send(start)
    is_shown = scope["method"] != "HEAD" and _may_have_body(response)
    started = time.monotonic()
    for chunk in _chunks(response.body) if is_shown else ():
        message = {"type": "http.response.body", "body": chunk, "more_body": True}
        await _in_time(send(message), started, response.body.tell())
    await send({"type": "http.response.body", "body": b""})


def _may_have_body(response: Response) -> bool:
    return response.status >= 200 and response.status not in (204, 304)


def _chunks(body: Body) -> Iterator[bytes]:
    while chunk := body.read(CHUNK_BYTES):
        yield chunk


def _json_response(
    status: int, content: object, content_type: str, *headers: tuple[bytes, bytes]
) -> Response:
    body: Body = SpooledTemporaryFile(MAX_IN_MEMORY_BYTES)  # noqa: SIM115 the caller closes it
    body.write(json.dumps(content).encode())
    fixed = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
    return Response(status, [*fixed, *headers], body)


def _problem(refused: Refused) -> Response:
    """A problem document, after which the connection is closed: the rest of the request may follow."""
    content = problem_body(refused.status, refused.detail, [])
    headers = [(b"connection", b"close")]
    if refused.status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
    return _json_response(refused.status, content, PROBLEM_TYPE, *headers)
