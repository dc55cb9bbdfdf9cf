"""A Valkey of the test's own, which the test stops, flushes and kills."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from django.conf import settings

from scribes.embedded.addresses import redis_url, socket_dir
from scribes.embedded.valkey import valkey_command
from tests.helpers.processes import eventually

# What makes Redis refuse writes, and what ends that.
REFUSALS = {
    "full": ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "without replicas": (
        "CONFIG SET min-replicas-to-write 1",
        "CONFIG SET min-replicas-to-write 0",
    ),
    "read-only": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "not permitted": ("ACL SETUSER default -@write", "ACL SETUSER default +@all"),
}


class Broker:
    def __init__(self, folder: Path) -> None:
        self.data = folder / "broker"
        (self.data / "valkey").mkdir(parents=True)
        socket_dir(self.data).mkdir(mode=0o700, exist_ok=True)
        self.url = redis_url(self.data)
        self.client = redis.Redis.from_url(self.url, socket_timeout=5)
        self.start()

    def start(self) -> None:
        with (self.data / "log").open("ab") as log:
            self.process = subprocess.Popen(valkey_command(self.data), stdout=log, stderr=log)
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def has_messages(self, queue: str) -> bool:
        """Whether messages wait in this queue, or any message is not acknowledged yet."""
        prefix = settings.REDIS_KEY_PREFIX
        return bool(self.client.llen(f"{prefix}{queue}") or self.client.hlen(f"{prefix}unacked"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def shut_down(self) -> None:
        """Stop it with SIGTERM, so that it keeps all messages."""
        self.process.terminate()
        self.process.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It accepts connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
            eventually(self._answers)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It answers, but every write waits."""
        self.client.execute_command("CLIENT", "PAUSE", "600000", "WRITE")
        try:
            yield
        finally:
            self.client.execute_command("CLIENT", "UNPAUSE")

    @contextmanager
    def refusing(self, why: str) -> Iterator[None]:
        """It answers, but refuses writes with an error."""
        begin, end = REFUSALS[why]
        self.client.execute_command(*begin.split())
        try:
            yield
        finally:
            self.client.execute_command(*end.split())

    @contextmanager
    def down(self) -> Iterator[None]:
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def flushed(self) -> Iterator[None]:
        """All messages are lost after they were accepted."""
        yield
        self.client.flushall()

    def close(self) -> None:
        self.kill()
        self.client.close()
        shutil.rmtree(socket_dir(self.data), ignore_errors=True)
