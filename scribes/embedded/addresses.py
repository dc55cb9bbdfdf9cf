"""Where the embedded servers of a data folder listen. It starts nothing and needs no settings:
the settings take their default addresses from here."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

# PostgreSQL and Valkey append at most 22 characters to the folder, and the operating system allows
# about 104 bytes for a socket's path.
SOCKET_DIR_MAX_BYTES = 80
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")
# The mail address before a mail sink has run: nothing should answer on this port.
UNUSED_PORT = 1025


def socket_dir(data: Path) -> Path:
    """The private folder of the sockets: in `data`, or a temporary folder where the path in `data` is
    too long for a socket or has characters that URL parsers treat differently."""
    inside = data / "run"
    if len(os.fsencode(inside)) <= SOCKET_DIR_MAX_BYTES and PLAIN_PATH.fullmatch(str(inside)):
        return inside
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"scribes-{os.geteuid()}-{digest}"


def database_url(data: Path) -> str:
    return f"postgresql:///scribes?host={socket_dir(data)}&user=scribes"


def redis_url(data: Path) -> str:
    return f"unix://{socket_dir(data)}/valkey.sock"


def mail_folder(data: Path) -> Path:
    """Where the mail sink keeps its messages, and its port in the file `port`."""
    return data / "mail"


def mail_url(data: Path) -> str:
    """The address of the mail sink while it runs, or of a port on which nothing answers."""
    try:
        port = int((mail_folder(data) / "port").read_text())
    except (FileNotFoundError, ValueError):
        port = UNUSED_PORT
    return f"smtp://127.0.0.1:{port}"
