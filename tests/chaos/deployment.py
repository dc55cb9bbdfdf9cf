"""Workers and beats over one broker and the test database, and ways to break them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import psycopg
from django.conf import settings
from django.db import connection

from tests.chaos.broker import Broker
from tests.helpers.processes import environment, eventually, shown_log

# Seconds instead of half minutes, so that a round is short.
QUICK = {
    "JOB_LEASE_SECONDS": "2",
    "JOB_REPUBLISH_SECONDS": "2",
    "RECONCILE_SECONDS": "1",
    "WORKER_CONCURRENCY": "2",
    "JOB_BATCH_SIZE": "20",
}
AS_SHIPPED = {"WORKER_CONCURRENCY": "2"}


class Program(psutil.Popen):
    """A process with a log file of its own."""

    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()


class Deployment:
    """The processes of one test."""

    def __init__(self, folder: Path, broker: Broker, variables: dict[str, str]) -> None:
        self.folder = folder
        self.env = environment(REDIS_URL=broker.url, **variables)
        self.programs: list[Program] = []
        self.shown_logs = ExitStack()

    def beat(self) -> Program:
        return self._start("beat")

    def worker(self, **variables: str) -> Program:
        """A worker that may not be ready yet."""
        name = f"worker{len(self.programs)}@%h"
        return self._start("worker", "--include", "tests.helpers.counting", "-n", name, **variables)

    def ready_worker(self, **variables: str) -> Program:
        worker = self.worker(**variables)
        eventually(lambda: "is ready" in worker.output, lambda: len(worker.output), process=worker)
        return worker

    def _start(self, command: str, *options: str, **variables: str) -> Program:
        log = self.folder / f"{len(self.programs)}-{command}.log"
        with log.open("wb") as output:
            program = Program(
                ["celery", "-A", "scribes", command, *options],
                env=self.env | variables,
                cwd=settings.BASE_DIR,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        program.log = log
        self.shown_logs.enter_context(shown_log(log))
        self.programs.append(program)
        return program

    def close(self) -> None:
        self.shown_logs.close()
        for program in self.programs:
            if program.is_running():
                # A stopped process reacts to no other signal.
                program.kill()
            program.wait()


def pool_processes(worker: Program) -> list[psutil.Process]:
    """The living processes of the worker's pool. Celery removes dead ones a little later."""
    return [child for child in worker.children() if _is_alive(child)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill(process: psutil.Process) -> None:
    """Send SIGKILL and wait until the process is dead."""
    process.kill()
    eventually(lambda: not _is_alive(process))


# --- PostgreSQL -----------------------------------------------------------------------------


def crash_postgresql() -> None:
    """Kill one server process: PostgreSQL then ends all sessions and recovers.

    Returns when the old sessions have ended and new ones are possible.
    """
    parameters = connection.get_connection_params()
    parameters = {k: v for k, v in parameters.items() if k not in ("cursor_factory", "context")}
    with psycopg.connect(**parameters) as victim, psycopg.connect(**parameters) as witness:
        psutil.Process(victim.info.backend_pid).kill()
        eventually(lambda: not _answers(witness))
    connection.close()
    eventually(lambda: _is_reachable(parameters))


def _answers(session: psycopg.Connection) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def _is_reachable(parameters: dict[str, Any]) -> bool:
    try:
        psycopg.connect(**parameters).close()
    except psycopg.OperationalError:
        return False
    return True
