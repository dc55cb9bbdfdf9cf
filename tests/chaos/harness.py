"""A broker, workers and beats that tests break, and the accounts of what came of it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import redis
from django.conf import settings
from django.utils import timezone

from jobs.models import BackgroundJob
from scribes import embedded
from scribes.models import User
from tests.counting import counted
from tests.processes import environment, eventually

# Seconds in place of half-minutes, so that a round is short.
QUICK = {
    "JOB_LEASE_SECONDS": "2",
    "JOB_REPUBLISH_SECONDS": "2",
    "RECONCILE_SECONDS": "1",
    "WORKER_CONCURRENCY": "2",
    "JOB_BATCH_SIZE": "20",
}


@dataclass
class Account:
    """A line of the table: what was done, and what came of it."""

    what: str
    rounds: int = 0
    faults: int = 0
    recoveries: list[float] = field(default_factory=list)
    lost: int = 0
    duplicated: int = 0

    def check(self, job: BackgroundJob, expected: list[int]) -> None:
        """Count what a job lost and what it did twice."""
        effects = counted(job)
        self.lost += len(set(expected) - set(effects))
        self.duplicated += len(effects) - len(set(effects))

    def row(self) -> tuple[str, ...]:
        times = (
            (f"{median(self.recoveries):.1f} s", f"{max(self.recoveries):.1f} s")
            if self.recoveries
            else ("", "")
        )
        numbers = map(str, (self.rounds, self.faults))
        return (self.what, *numbers, *times, str(self.lost), str(self.duplicated))


class Broker:
    """A Valkey of the test's own, to be stopped, flushed and killed."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "broker"
        (self.data / "valkey").mkdir(parents=True)
        embedded.socket_dir(self.data).mkdir(mode=0o700, exist_ok=True)
        self.url = embedded.redis_url(self.data)
        self.client = redis.Redis.from_url(self.url, socket_timeout=5)
        self.start()

    def start(self) -> None:
        with (self.data / "log").open("ab") as log:
            self.process = subprocess.Popen(
                embedded.valkey_command(self.data), stdout=log, stderr=log
            )
        eventually(self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def shutdown(self) -> None:
        self.process.terminate()
        self.process.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Half-open: it takes connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
            eventually(self._answers)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.client.execute_command("CLIENT", "PAUSE", "600000", "WRITE")
        try:
            yield
        finally:
            self.client.execute_command("CLIENT", "UNPAUSE")

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
        shutil.rmtree(embedded.socket_dir(self.data), ignore_errors=True)


class Program(psutil.Popen):
    """A process and the file that it writes to."""

    log: Path


class House:
    """The processes of one test, over one broker and the test database."""

    def __init__(self, folder: Path, broker: Broker, variables: dict[str, str]) -> None:
        self.folder = folder
        self.env = environment(REDIS_URL=broker.url, **variables)
        self.processes: list[Program] = []

    def run(self, *command: str, **variables: str) -> Program:
        log = self.folder / f"{len(self.processes)}-{command[3]}.log"
        with log.open("wb") as output:
            process = Program(
                command,
                env=self.env | variables,
                cwd=settings.BASE_DIR,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process.log = log
        self.processes.append(process)
        return process

    def beat(self) -> Program:
        return self.run("celery", "-A", "scribes", "beat")

    def worker(self, **variables: str) -> Program:
        name = f"worker{len(self.processes)}@%h"
        command = ("celery", "-A", "scribes", "worker", "--include", "tests.counting", "-n", name)
        return self.run(*command, **variables)

    def ready_worker(self, **variables: str) -> Program:
        worker = self.worker(**variables)
        eventually(lambda: "is ready" in worker.log.read_text())
        return worker

    def close(self) -> None:
        for process in self.processes:
            if process.is_running():
                # A stopped process takes no other signal.
                process.kill()
            process.wait()


def children(worker: Program) -> list[psutil.Process]:
    """The processes of its pool that live. Celery clears away dead ones a while later."""
    return [child for child in worker.children() if lives(child)]


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill(process: psutil.Process) -> None:
    """SIGKILL, and wait until it is dead."""
    process.kill()
    eventually(lambda: not lives(process), timeout=10)


def make_job(email: str, count: int, **parameters) -> BackgroundJob:
    """A job that counts, as an API would accept it, without telling any broker."""
    user, _ = User.objects.get_or_create(email=email)
    return accept(user, "counting", {"count": count} | parameters)


def accept(user: User, job_type: str, parameters: dict[str, Any]) -> BackgroundJob:
    now = timezone.now()
    return BackgroundJob.objects.create(
        user=user,
        job_type=job_type,
        parameters=parameters,
        created_at=now,
        dispatched_at=now - timedelta(hours=1),
    )


def done_items(job: BackgroundJob) -> int:
    job.refresh_from_db()
    return job.done_items


def until_it_moves(job: BackgroundJob, timeout: float = 120) -> float:
    """Seconds until the job's counters move, or it ends."""
    start, before = time.monotonic(), done_items(job)
    eventually(lambda: done_items(job) > before or job.is_terminal, timeout)
    return time.monotonic() - start


def until_it_ends(job: BackgroundJob, timeout: float = 300) -> BackgroundJob:
    def ended() -> bool:
        job.refresh_from_db()
        return job.is_terminal

    eventually(ended, timeout)
    return job
