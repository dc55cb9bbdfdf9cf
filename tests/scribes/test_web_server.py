"""The web server: slow clients cost no thread, and every body is read."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import requests
from django.conf import settings

from jobs.models import BackgroundJob
from notes.models import Note
from tests.helpers.processes import LONGEST_WAIT_SECONDS, environment, eventually
from tests.helpers.servers import Web, web_process

pytestmark = pytest.mark.django_db(transaction=True)

STALLED = {
    "nothing": b"",
    "half a header": b"GET /notes HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
    "half a body": b"POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
    "half a chunk": b"POST /notes HTTP/1.1\r\nHost: localhost\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n1000\r\n{",
}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with web_process(tmp_path) as web:
        web.sign_up("alice@example.com")
        yield web


@contextmanager
def connections(web: Web, number: int, data: bytes) -> Iterator[list[socket.socket]]:
    """This many clients that have sent `data` and wait."""
    address = ("127.0.0.1", urlsplit(web.url).port or 0)
    with ExitStack() as stack:
        clients = []
        for _ in range(number):
            client = socket.create_connection(address)
            stack.enter_context(client)
            client.sendall(data)
            clients.append(client)
        yield clients


def request_of(path: str, web: Web) -> bytes:
    """A request with the session's token."""
    token = str(web.session.headers["Authorization"])
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n".encode()


@pytest.mark.parametrize("data", STALLED.values(), ids=STALLED)
def test_stalled_clients_do_not_delay_others(web: Web, data: bytes):
    with connections(web, 200, data):
        assert web.get("/health/live").json() == {"status": "ok"}
        assert web.get("/notes").status_code == 200
        assert requests.get(f"{web.url}/notes", timeout=LONGEST_WAIT_SECONDS).status_code == 401


def test_clients_that_do_not_read_do_not_delay_others(web: Web):
    content = "Be still. " * 50_000
    note = web.post("/notes", json={"title": "Long", "content": content}).json()["id"]
    with connections(web, 20, request_of(f"/notes/{note}", web)):
        assert web.get("/health/live").ok
        assert web.get("/notes").ok


@pytest.mark.parametrize("data", [STALLED["nothing"], STALLED["half a header"]])
def test_connection_without_a_request_is_closed(web: Web, data: bytes):
    with connections(web, 1, data) as (client,):
        client.settimeout(LONGEST_WAIT_SECONDS)
        assert client.recv(1) == b""


def test_oldest_waiting_connections_are_closed_when_there_are_too_many(tmp_path: Path):
    with web_process(tmp_path, WEB_CONNECTIONS="10") as web, connections(web, 30, b"") as clients:
        clients[0].settimeout(LONGEST_WAIT_SECONDS)
        assert clients[0].recv(1) == b""
        assert web.get("/health/live").ok


def test_chunked_bodies_are_read(web: Web):
    note = {"title": "Rest", "content": "Beside the still waters."}
    created = web.post("/notes", data=chunks(note), headers=JSON)
    assert created.status_code == 201, created.text
    changed = web.patch(
        f"/notes/{created.json()['id']}", data=chunks({"title": "Still"}), headers=JSON
    )
    assert changed.json()["title"] == Note.objects.get().title == "Still"


JSON = {"Content-Type": "application/json"}


def chunks(body: object) -> Iterator[bytes]:
    """requests sends an iterator as a chunked body."""
    for character in json.dumps(body):
        yield character.encode()


def test_chunked_dry_run_starts_no_job(web: Web):
    body = chunks({"dry_run": True})
    answer = web.post("/semantic/regenerate-embeddings", data=body, headers=JSON)
    assert (answer.status_code, answer.json()["notes"]) == (200, 0)
    assert not BackgroundJob.objects.exists()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_too_large_body_is_refused(web: Web, is_chunked: bool):
    size = settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1
    body = (b"x" * 100_000 for _ in range(size // 100_000 + 1)) if is_chunked else b"x" * size
    # A client that is still sending may see a closed connection instead of the answer.
    with suppress(requests.ConnectionError):
        answer = web.post("/notes", data=body, headers=JSON)
        assert answer.status_code == 413
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert not Note.objects.exists()
    assert web.get("/notes").ok


def test_live_answers_while_all_threads_are_busy(tmp_path: Path):
    with web_process(tmp_path, WEB_THREADS="1") as web:
        web.sign_up("alice@example.com")
        with psycopg.connect(environment()["DATABASE_URL"]) as other:
            other.execute("LOCK TABLE notes")
            with connections(web, 3, request_of("/notes", web)):
                eventually(lambda: is_waiting_for_a_lock(other))
                live = requests.get(f"{web.url}/health/live", timeout=LONGEST_WAIT_SECONDS)
                assert live.json() == {"status": "ok"}


def is_waiting_for_a_lock(session: psycopg.Connection) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    (number,) = session.execute(query).fetchone() or (0,)
    return bool(number)


def test_request_is_refused_when_too_many_wait(tmp_path: Path):
    with web_process(tmp_path, WEB_THREADS="1") as web:
        web.sign_up("alice@example.com")
        with psycopg.connect(environment()["DATABASE_URL"]) as other:
            other.execute("LOCK TABLE notes")
            with connections(web, 40, request_of("/notes", web)) as clients:
                clients[-1].settimeout(LONGEST_WAIT_SECONDS)
                answer = clients[-1].recv(10_000)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in answer
    assert b"The server is busy. Try again later." in answer


def test_server_stops_although_clients_are_connected(tmp_path: Path):
    with web_process(tmp_path) as web, ExitStack() as stack:
        for data in STALLED.values():
            stack.enter_context(connections(web, 5, data))
        assert web.get("/health/live").ok
    # web_process waits for its end.


def test_request_headers_reach_django(web: Web):
    answer = web.get("/notes?limit=1&ordering=title", headers={"X-Forwarded-For": "1.2.3.4"})
    assert answer.status_code == 200
    assert answer.headers["X-Request-ID"]
    assert web.get("/notes/1%2F2").status_code == 404
    assert web.get("/notes?preacher=%C3%A4").status_code == 200


def test_head_has_no_body(web: Web):
    answer = web.head("/notes")
    assert (answer.status_code, answer.text) == (200, "")
    assert int(answer.headers["Content-Length"]) > 0
