"""A mail server that sends nothing on: it keeps each message as a file, for people and tests to read.

It listens on this machine only, on a port that is free; the file `port` beside its messages says
which. Anybody on the machine can hand it a message, but not read one.

Not for production: set EMAIL_URL there.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiosmtpd.smtp import SMTP, Envelope, Session

# Where no sink has run yet: a port on which nothing should answer.
UNUSED_PORT = 1025


def folder(data: Path) -> Path:
    return data / "mail"


def url(data: Path) -> str:
    """The address of this data folder's sink, as far as it runs."""
    try:
        port = int((folder(data) / "port").read_text())
    except (FileNotFoundError, ValueError):
        port = UNUSED_PORT
    return f"smtp://127.0.0.1:{port}"


@contextmanager
def running(data: Path) -> Iterator[None]:
    """Take messages for the length of a with block."""
    from aiosmtpd.controller import Controller

    folder(data).mkdir(mode=0o700, exist_ok=True)
    controller = Controller(_Keeper(folder(data)), hostname="127.0.0.1", port=_free_port())
    controller.start()
    _write(folder(data) / "port", str(controller.port).encode())
    try:
        yield
    finally:
        (folder(data) / "port").unlink()
        controller.stop()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class _Keeper:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Under a name that sorts by time. What was answered with 250 is there."""
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}.eml"
        _write(self.folder / name, envelope.original_content or b"")
        return "250 Kept"


def _write(path: Path, content: bytes) -> None:
    """The whole file or nothing."""
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(content)
    draft.replace(path)
