"""Runs a WSGI application in a few threads behind an ASGI server.

The event loop reads the whole request before a thread gets it, and a thread is free again before the
client has read the response. So clients that are slow, or do nothing, cost no thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from tempfile import SpooledTemporaryFile
from threading import Semaphore
from typing import Any, NamedTuple

from django.conf import settings

from scribes.api.problems import PROBLEM_TYPE, RETRY_AFTER_SECONDS, problem_body
from scribes.serving.environ import wsgi_environ

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Body = SpooledTemporaryFile[bytes]

# A body must make progress in this time, and arrive with MIN_BYTES_PER_SECOND after it.
PROGRESS_SECONDS = 30
MIN_BYTES_PER_SECOND = 10_000
# A client that is still sending when it is refused may send for so long. It would not see the answer
# if the connection was closed at once.
DISCARD_SECONDS = 10
# Larger requests and responses are kept in temporary files: each open connection may have one.
MAX_IN_MEMORY_BYTES = 64 * 1024
CHUNK_BYTES = 64 * 1024
# Requests that wait for a thread, for each thread. More would wait for longer than clients do.
MAX_WAITING_PER_THREAD = 25


class Refused(Exception):
    """The request is answered without Django."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Gone(Exception):
    """The client has closed the connection."""


class Response(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: Body


class Bridge:
    """An ASGI application around a WSGI application.

    `threads` threads run it. Paths in `without_thread` are answered in the event loop, also while all
    threads are busy: they must take no time, and use no database.
    """

    def __init__(
        self, application: Callable[..., Any], threads: int, without_thread: Collection[str]
    ) -> None:
        self._application = application
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="django")
        self._places = Semaphore(threads * (1 + MAX_WAITING_PER_THREAD))
        self._without_thread = without_thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        try:
            response = await self._respond(scope, receive)
        except Gone:
            return
        except Refused as refused:
            await _send(send, scope, _problem(refused))
            await _discard(receive)
        else:
            await _send(send, scope, response)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        """Raises Refused and Gone."""
        body = _temporary_file()
        if scope["path"] in self._without_thread and scope["method"] in ("GET", "HEAD"):
            return self._call(wsgi_environ(scope, body))
        await _receive_body(scope, receive, body)
        return await asyncio.wrap_future(self._submit(wsgi_environ(scope, body)))

    def _submit(self, environ: dict[str, Any]) -> Future[Response]:
        """Let a thread answer it. If the client leaves before a thread has begun, none will begin."""
        if not self._places.acquire(blocking=False):
            raise Refused(503, "The server is busy. Try again later.")
        call = self._pool.submit(self._call, environ)
        call.add_done_callback(lambda _: self._places.release())
        return call

    def _call(self, environ: dict[str, Any]) -> Response:
        """Run the application, and keep its whole response."""
        body = _temporary_file()
        started: list[Response] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
            encoded = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers]
            started[:] = [Response(int(status.split(" ", 1)[0]), encoded, body)]
            return body.write

        with environ["wsgi.input"]:
            result = self._application(environ, start_response)
            try:
                for chunk in result:
                    body.write(chunk)
            finally:
                if hasattr(result, "close"):
                    result.close()
        return started[0]


def _temporary_file() -> Body:
    return SpooledTemporaryFile(MAX_IN_MEMORY_BYTES)


# --- Requests -------------------------------------------------------------------------------


async def _receive_body(scope: Scope, receive: Receive, body: Body) -> None:
    """Write the request's body into the file. Raises Refused and Gone."""
    if _content_length(scope) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise _too_large()
    now = asyncio.get_running_loop().time
    started = now()
    try:
        async with asyncio.timeout(PROGRESS_SECONDS) as limit:
            while await _receive_chunk(receive, body):
                slowest = started + PROGRESS_SECONDS + body.tell() / MIN_BYTES_PER_SECOND
                limit.reschedule(min(now() + PROGRESS_SECONDS, slowest))
    except TimeoutError as error:
        raise Refused(408, "The request body did not arrive in time.") from error


async def _receive_chunk(receive: Receive, body: Body) -> bool:
    """Whether more follows. Raises Refused and Gone."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    body.write(message["body"])
    if body.tell() > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise _too_large()
    return bool(message["more_body"])


def _content_length(scope: Scope) -> int:
    return int(dict(scope["headers"]).get(b"content-length", 0))


def _too_large() -> Refused:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return Refused(413, f"The request body is larger than {limit:,} bytes.")


async def _discard(receive: Receive) -> None:
    """Read what the client still sends, but not for long."""
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while (await receive()).get("more_body"):
                pass
    except TimeoutError:
        pass


# --- Responses ------------------------------------------------------------------------------


async def _send(send: Send, scope: Scope, response: Response) -> None:
    """Send the response. The server closes the connection of a client that does not read it."""
    with response.body as body:
        length = body.tell()
        body.seek(0)
        headers = response.headers
        may_have_body = response.status not in (204, 304)
        if may_have_body and not any(name == b"content-length" for name, _ in headers):
            headers = [*headers, (b"content-length", str(length).encode())]
        start = {"type": "http.response.start", "status": response.status, "headers": headers}
        await send(start)
        await _send_body(send, body, length if may_have_body and scope["method"] != "HEAD" else 0)


async def _send_body(send: Send, body: Body, length: int) -> None:
    sent = 0
    has_more = True
    while has_more:
        chunk = body.read(min(CHUNK_BYTES, length - sent))
        sent += len(chunk)
        has_more = sent < length
        await send({"type": "http.response.body", "body": chunk, "more_body": has_more})


def _problem(refused: Refused) -> Response:
    """A problem document, after which the connection is closed: the rest of the request may follow."""
    body = _temporary_file()
    body.write(json.dumps(problem_body(refused.status, refused.detail, [])).encode())
    headers = [(b"content-type", PROBLEM_TYPE.encode()), (b"connection", b"close")]
    if refused.status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
    return Response(refused.status, headers, body)
