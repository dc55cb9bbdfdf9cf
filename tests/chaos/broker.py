"""A Valkey of the test's own, which the test stops, flushes and kills."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from django.conf import settings

from scribes.embedded.addresses import redis_url, socket_dir
from scribes.embedded.valkey import valkey_command
from tests.helpers.processes import eventually


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
    def full(self) -> Iterator[None]:
        """Its memory is full: it refuses every write that needs memory."""
        with self._configured("maxmemory", "1"):
            yield

    @contextmanager
    def restricted(self) -> Iterator[None]:
        """Somebody has taken the right to write from its user."""
        self.client.execute_command("ACL", "SETUSER", "default", "-@write")
        try:
            yield
        finally:
            self.client.execute_command("ACL", "SETUSER", "default", "+@all")

    @contextmanager
    def short_of_replicas(self) -> Iterator[None]:
        """It refuses all writes, since it must have replicas and has none."""
        with self._configured("min-replicas-to-write", "1"):
            yield

    @contextmanager
    def _configured(self, name: str, value: str) -> Iterator[None]:
        self.client.config_set(name, value)
        try:
            yield
        finally:
            self.client.config_set(name, "0")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """It is a replica of a server that is down, as after a failover."""
        self.client.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            yield
        finally:
            self.client.execute_command("REPLICAOF", "NO", "ONE")

    @contextmanager
    def outdated(self) -> Iterator[None]:
        """It is such a replica, and must not answer with what may be outdated."""
        with self.read_only():
            self.client.config_set("replica-serve-stale-data", "no")
            try:
                yield
            finally:
                self.client.config_set("replica-serve-stale-data", "yes")

    @contextmanager
    def busy(self) -> Iterator[None]:
        """It runs a script without end, and refuses everything else."""
        self.client.config_set("busy-reply-threshold", "1")
        with redis.Redis.from_url(self.url) as client, ThreadPoolExecutor(1) as pool:
            script = pool.submit(client.eval, "while true do end", 0)
            try:
                yield
            finally:
                eventually(self._kill_script)
                with suppress(redis.ResponseError):
                    script.result()

    def _kill_script(self) -> bool:
        with suppress(redis.ResponseError):
            return bool(self.client.script_kill())
        return False

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
