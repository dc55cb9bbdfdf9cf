"""The web server: slow clients cost no thread, and every body is read."""

from __future__ import annotations

import json
import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import requests

from jobs.models import BackgroundJob
from notes.models import Note
from tests.helpers.processes import LONGEST_WAIT_SECONDS, environment, eventually
from tests.helpers.servers import Web, web_process

pytestmark = pytest.mark.django_db(transaction=True)

JSON = {"Content-Type": "application/json"}
POST = b"POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
STALLED = {
    "nothing": b"",
    "half a header": b"GET /notes HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
    "half a body": POST + b"Content-Length: 1000\r\n\r\n{",
    "half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n{",
}
LARGE_FILE = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"


@pytest.fixture(scope="module")
def server(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web_process(tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture
def web(server: Web) -> Iterator[Web]:
    """The same process for all tests, with a new client."""
    web = Web(server.url)
    web.process = server.process
    with web.session:
        yield web


@pytest.fixture
def signed_in(web: Web) -> Web:
    """She is signed in. Not in each test: allauth allows 20 accounts a minute."""
    web.sign_up("alice@example.com")
    return web


@pytest.fixture
def one_thread(tmp_path: Path) -> Iterator[Web]:
    """A web process with one thread, which may wait for a lock for as long as it likes."""
    url = environment()["DATABASE_URL"]
    url += ("&" if "?" in url else "?") + "options=-c%20lock_timeout%3D0"
    limits = {"WEB_CONNECTIONS": "60", "WEB_STATEMENT_TIMEOUT_SECONDS": "600"}
    with web_process(tmp_path, WEB_THREADS="1", DATABASE_URL=url, **limits) as web:
        web.sign_up("alice@example.com")
        yield web


def connect(web: Web, data: bytes) -> socket.socket:
    """A client that has sent `data`."""
    client = socket.socket()
    # The operating system would otherwise receive much of a response that is not read.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(LONGEST_WAIT_SECONDS)
    client.connect(("127.0.0.1", urlsplit(web.url).port or 0))
    client.sendall(data)
    return client


@contextmanager
def connections(web: Web, number: int, data: bytes) -> Iterator[list[socket.socket]]:
    """This many clients that have sent `data` and wait."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(web, data)) for _ in range(number)]


@contextmanager
def unread_responses(web: Web, number: int) -> Iterator[list[socket.socket]]:
    """This many clients that read only the first byte of a response."""
    request = f"GET {LARGE_FILE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with connections(web, number, request) as clients:
        assert {client.recv(1) for client in clients} == {b"H"}
        yield clients


def request_of(path: str, web: Web) -> bytes:
    """A request with the session's token."""
    token = str(web.session.headers["Authorization"])
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n".encode()


def rest_of(client: socket.socket) -> bytes:
    """Everything that the server sends until it closes the connection."""
    received = b""
    try:
        while data := next_data(client):
            received += data
    except ConnectionResetError:
        pass
    return received


def next_data(*clients: socket.socket) -> bytes:
    """What the server sends to one of these clients next; empty if it has closed the connection."""
    readable = eventually(lambda: select.select(clients, [], [], 0)[0])
    return readable[0].recv(100_000)


def answer_to(web: Web, data: bytes) -> bytes:
    with connect(web, data) as client:
        return rest_of(client)


def answers_others(web: Web) -> bool:
    """Whether clients that come now get an answer, without and with a thread."""
    live = requests.get(f"{web.url}/health/live", timeout=LONGEST_WAIT_SECONDS)
    headers = {"Authorization": str(web.session.headers["Authorization"])}
    notes = requests.get(f"{web.url}/notes", headers=headers, timeout=LONGEST_WAIT_SECONDS)
    return (live.text, notes.status_code) == ('{"status": "ok"}', 200)


# --- Clients that are slow or do nothing ----------------------------------------------------


@pytest.mark.parametrize("data", STALLED.values(), ids=STALLED)
def test_stalled_clients_do_not_delay_others(signed_in: Web, data: bytes):
    with connections(signed_in, 500, data):
        assert answers_others(signed_in)


def test_clients_that_do_not_read_do_not_delay_others(signed_in: Web):
    with unread_responses(signed_in, 50):
        assert answers_others(signed_in)


def test_stalled_connections_are_closed(web: Web):
    """The slowest limit is 30 s, so all kinds wait together."""
    with ExitStack() as stack:
        (unread,) = stack.enter_context(unread_responses(web, 1))
        clients = [stack.enter_context(connect(web, data)) for data in STALLED.values()]
        answers = [rest_of(client)[:13] for client in clients]
        assert answers == [b"", b"", b"HTTP/1.1 408 ", b"HTTP/1.1 408 "]
        eventually(lambda: connections_of(web) <= 1)  # the session's
        assert len(rest_of(unread)) < 1_000_000
    assert not complaints_of(web)


def complaints_of(web: Web) -> list[str]:
    """What the server itself has logged as a warning or an error."""
    lines = [json.loads(line) for line in web.process.output.splitlines()]
    own = [line for line in lines if line["logger"].startswith(("gunicorn", "asyncio"))]
    return [line["event"] for line in own if line["level"] != "info"]


def connections_of(web: Web) -> int:
    """The number of clients that are connected."""
    processes = psutil.Process(web.process.popen.pid).children()
    found = [c for process in processes for c in process.net_connections("tcp")]
    own = [c for c in found if c.laddr.port == urlsplit(web.url).port]
    return len([c for c in own if c.status != psutil.CONN_LISTEN])


def test_oldest_waiting_connection_is_closed_when_too_many(one_thread: Web):
    with connections(one_thread, 100, b"") as clients:
        assert rest_of(clients[0]) == b""
        assert answers_others(one_thread)


def test_connection_is_refused_when_all_have_requests(one_thread: Web):
    request = POST + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    with connections(one_thread, 60, request) as clients:
        assert {client.recv(12) for client in clients} == {b"HTTP/1.1 100"}
        answer = answer_to(one_thread, b"")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"too many connections" in answer
    assert answers_others(one_thread)


# --- Busy threads ---------------------------------------------------------------------------


@contextmanager
def busy_thread(web: Web) -> Iterator[tuple[socket.socket, psycopg.Connection]]:
    """The client whose request waits in the only thread, and the session whose lock it waits for."""
    with psycopg.connect(environment()["DATABASE_URL"]) as other:
        other.execute("LOCK TABLE notes")
        with connect(web, request_of("/notes", web)) as client:
            eventually(lambda: is_waiting_for_a_lock(other))
            yield client, other


def is_waiting_for_a_lock(session: psycopg.Connection) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    (number,) = session.execute(query).fetchone() or (0,)
    return bool(number)


def test_live_answers_while_all_threads_are_busy(one_thread: Web):
    with busy_thread(one_thread):
        with connect(one_thread, request_of("/health/live", one_thread)) as client:
            assert next_data(client).endswith(b'\r\n\r\n{"status": "ok"}')
        assert one_thread.get("/health/live", headers={"Host": "elsewhere"}).status_code == 400


def test_request_is_refused_when_too_many_wait(one_thread: Web):
    request = request_of("/notes", one_thread)
    with busy_thread(one_thread), connections(one_thread, 40, request) as clients:
        answer = next_data(*clients)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5\r\n" in answer
    assert b"The server is busy. Try again later." in answer


def test_request_is_dropped_when_its_client_leaves(one_thread: Web):
    token = str(one_thread.session.headers["Authorization"]).encode()
    body = b'{"title": "Gone"}'
    request = POST + b"Authorization: %s\r\nContent-Length: %d\r\n\r\n" % (token, len(body)) + body
    with busy_thread(one_thread):
        for _ in range(2):  # more than may wait at a time
            with connections(one_thread, 25, request):
                eventually(lambda: connections_of(one_thread) > 25)
            eventually(lambda: connections_of(one_thread) <= 2)
        with connect(one_thread, request_of("/jobs", one_thread)) as client:
            one_thread.get("/health/live")  # the request before it has been read by now
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
    assert one_thread.get("/notes").json()["total"] == 0


# --- Stopping -------------------------------------------------------------------------------


def test_stop_does_not_wait_for_stalled_clients(tmp_path: Path):
    with ExitStack() as clients, web_process(tmp_path) as web:
        for data in STALLED.values():
            clients.enter_context(connections(web, 20, data))
        clients.enter_context(unread_responses(web, 5))
    assert "Waiting for 4" in web.process.output  # half-sent bodies and unread responses
    assert "Forcing close" not in web.process.output


def test_stop_finishes_a_request_in_progress(one_thread: Web):
    with busy_thread(one_thread) as (client, other):
        one_thread.process.popen.terminate()
        one_thread.process.await_output("Waiting for 1 connections")
        other.rollback()
        assert rest_of(client).startswith(b"HTTP/1.1 200 ")
    assert "Forcing close" not in one_thread.process.output


# --- Bodies ---------------------------------------------------------------------------------


def test_chunked_bodies_are_read(signed_in: Web):
    note = {"title": "Rest", "content": "Beside the still waters."}
    created = signed_in.post("/notes", data=chunks(note), headers=JSON)
    assert created.status_code == 201, created.text
    path = f"/notes/{created.json()['id']}"
    changed = signed_in.patch(path, data=chunks({"title": "Still"}), headers=JSON)
    assert changed.json()["title"] == Note.objects.get().title == "Still"


def chunks(body: object) -> Iterator[bytes]:
    """requests sends an iterator as a chunked body."""
    for character in json.dumps(body):
        yield character.encode()


def test_chunked_dry_run_starts_no_job(signed_in: Web):
    body = chunks({"dry_run": True})
    answer = signed_in.post("/semantic/regenerate-embeddings", data=body, headers=JSON)
    assert (answer.status_code, answer.json()["notes"]) == (200, 0)
    assert not BackgroundJob.objects.exists()


def test_large_body_and_response_are_complete(signed_in: Web):
    note = {"title": "Long", "content": "Be still. " * 50_000}
    created = signed_in.post("/notes", json=note).json()
    assert signed_in.get(f"/notes/{created['id']}").json()["content"] == note["content"]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_too_large_body_is_refused(web: Web, is_chunked: bool):
    """The client sends much more than the limit before it reads the answer, and goes on."""
    sent = b"%x\r\n%s\r\n" % (2**16, b"x" * 2**16) * 300
    header = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 100000000"
    with connect(web, POST + header + b"\r\n\r\n" + sent) as client:
        head, _, body = next_data(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["detail"] == "The request body is larger than 5,242,880 bytes."
    assert not Note.objects.exists()


def test_too_large_body_is_refused_before_it_is_sent(web: Web):
    head = POST + b"Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n"
    with connect(web, head) as client:
        assert client.recv(13) == b"HTTP/1.1 413 "


def test_expected_body_is_asked_for(web: Web):
    with connect(web, POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n") as client:
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert client.recv(13) == b"HTTP/1.1 401 "


# --- Malformed and unusual requests ----------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 5000, 431),
        (b"GET / HTTP/1.1\r\n" + (b"X-A: " + b"b" * 8000 + b"\r\n") * 10, 431),
        (b"GET /notes?title=" + b"x" * 10_000 + b" HTTP/1.1\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
    ids=["many headers", "large headers", "long query", "two hosts", "two lengths", "TLS"],
)
def test_malformed_request_gets_a_problem(web: Web, data: bytes, status: int):
    head, _, body = answer_to(web, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/problem+json\r\n" in head
    assert json.loads(body)["status"] == status


def test_websocket_is_refused(web: Web):
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert answer_to(web, request + key).startswith(b"HTTP/1.1 403 ")


def test_pipelined_requests_are_answered_in_order(signed_in: Web):
    first, last = request_of("/jobs", signed_in), b"GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n"
    answer = answer_to(signed_in, first + first + last)
    assert re.findall(rb"HTTP/1.[01] (\d+)", answer) == [b"200", b"200", b"404"]


def test_request_reaches_django_unchanged(signed_in: Web):
    answer = signed_in.get("/notes/ä%2Fb?x=%C3%A4")
    assert answer.json()["detail"] == "There is nothing at /notes/ä/b."
    assert answer.headers["X-Request-ID"]
    secure = {"X-Forwarded-Proto": "https"}
    assert signed_in.get("/", headers=secure).json()["notes"].startswith("https://127.0.0.1:")
    note = signed_in.post("/notes", json={"title": "Gebühr", "preacher": "Jürgen"}).json()
    assert [found["id"] for found in signed_in.get("/notes?preacher=Jürgen").json()["notes"]] == [
        note["id"]
    ]


def test_repeated_cookies_are_all_read(web: Web):
    token = "a" * 32
    request = (
        f"GET /admin/login/ HTTP/1.0\r\nHost: localhost\r\nCookie: x=1\r\nCookie: csrftoken={token}"
    )
    # Django sends the cookie again that it was sent, or a new one if there was none.
    assert f"csrftoken={token}; " in answer_to(web, f"{request}\r\n\r\n".encode()).decode()


def test_head_has_no_body(signed_in: Web):
    for path in ("/notes", "/health/live"):
        answer = signed_in.head(path)
        assert (answer.status_code, answer.text) == (200, "")
        assert answer.headers["Content-Length"] == str(len(signed_in.get(path).content))
    assert not complaints_of(signed_in)


# --- Operation ------------------------------------------------------------------------------


def test_server_logs_as_other_processes_do(web: Web):
    lines = [json.loads(line) for line in web.process.output.splitlines()]
    assert "gunicorn.error" in {line["logger"] for line in lines}


def test_server_has_no_socket_that_others_could_use(tmp_path: Path):
    with web_process(tmp_path, HOME=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path)) as web:
        sockets = [path for path in tmp_path.rglob("*") if path.is_socket()]
        assert web.get("/health/live").ok
    assert not sockets
