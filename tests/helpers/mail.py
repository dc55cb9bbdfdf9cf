"""Receivers of reminders: a mail server and a web server that record what they receive and answer
as a test tells them to."""

from __future__ import annotations

import email
import email.policy
import socket
from collections import Counter
from collections.abc import Callable
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from aiosmtpd.controller import Controller

from scribes.embedded.ports import free_port
from tests.helpers.processes import LONGEST_WAIT_SECONDS

Answer = Callable[[EmailMessage], str]


class MailServer:
    """A real SMTP server on a port of 127.0.0.1. `messages` lists what it accepted."""

    def __init__(self) -> None:
        self.port = free_port()
        self.messages: list[EmailMessage] = []
        self.answer: Answer = lambda message: "250 OK"
        # The answer to every recipient, such as "550 unknown"; empty to accept all.
        self.refuse_recipient = ""
        self.start()

    def start(self) -> None:
        self.controller = Controller(
            self, hostname="127.0.0.1", port=self.port, ready_timeout=LONGEST_WAIT_SECONDS
        )
        self.controller.start()

    def stop(self) -> None:
        self.controller.stop(no_assert=True)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_RCPT(self, server, session, envelope, address: str, options) -> str:
        if self.refuse_recipient:
            return self.refuse_recipient
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:
        message = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        answer = self.answer(message)
        if answer.startswith("250"):
            self.messages.append(message)
        return answer

    def copies(self) -> Counter[str]:
        """How often each Message-ID was accepted."""
        return Counter(message["Message-ID"] for message in self.messages)


def body(message: EmailMessage, kind: str = "plain") -> str:
    """The text of the message's body: `kind` is plain or html."""
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


class WebServer:
    """An HTTP server on a port of 127.0.0.1. It answers with `statuses` in turn, and repeats the last."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses = [200]
        self.headers: dict[str, str] = {}
        self.lock = Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                with recorder.lock:
                    recorder.requests.append((self.path, dict(self.headers), content))
                    statuses = recorder.statuses
                    status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
                self.send_response(status)
                for name, value in recorder.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        return Handler

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Listener:
    """A port of 127.0.0.1 to which nothing should connect."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.05)
        self.port = self.socket.getsockname()[1]

    def was_called(self) -> bool:
        try:
            self.socket.accept()[0].close()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()
