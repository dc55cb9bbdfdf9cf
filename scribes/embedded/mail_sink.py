"""A mail server that delivers nothing: it stores each message as a file, for people and tests to read.

It listens on a free port of this machine only. Any program on the machine can hand it a message, but
only the owner of the data folder can read one.

Not for production: set EMAIL_URL there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from scribes.embedded.addresses import mail_folder
from scribes.embedded.ports import free_port

# It starts in this process, in no time unless the machine is very busy.
START_TIMEOUT_SECONDS = 60


@contextmanager
def running(data: Path) -> Iterator[None]:
    """Accept messages for the length of a with block."""
    folder = mail_folder(data)
    folder.mkdir(mode=0o700, exist_ok=True)
    controller = Controller(
        _Store(folder),
        hostname="127.0.0.1",
        port=free_port(),
        ready_timeout=START_TIMEOUT_SECONDS,
    )
    controller.start()
    _write(folder / "port", str(controller.port).encode())
    try:
        yield
    finally:
        (folder / "port").unlink()
        controller.stop()


class _Store:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Store the message under a name that sorts by time, then answer 250."""
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}.eml"
        content = envelope.original_content or b""
        _write(self.folder / name, content)
        return "250 Stored"


def _write(path: Path, content: bytes) -> None:
    """Write the whole file or nothing."""
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(content)
    draft.replace(path)
