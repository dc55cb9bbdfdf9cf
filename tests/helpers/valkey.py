"""A Valkey server that one test may change, fill, stop and kill."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import redis

from scribes.embedded.addresses import redis_url, socket_dir
from scribes.embedded.valkey import valkey_command
from tests.helpers.processes import eventually


class Valkey:
    def __init__(self, data: Path, *options: str) -> None:
        """Start a server with its data in the folder `data`, which must not exist yet."""
        (data / "valkey").mkdir(parents=True)
        socket_dir(data).mkdir(mode=0o700, exist_ok=True)
        self.url = redis_url(data)
        command = [*valkey_command(data), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(self._answers)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def _answers(self) -> bool:
        try:
            return self.client().ping() is True
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False

    def freeze(self) -> None:
        """From now on it accepts connections and never answers."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
