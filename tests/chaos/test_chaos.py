"""Everything that a server room does to jobs, done to real processes."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import psycopg
import pytest
from django.conf import settings
from django.db import connection, connections

from jobs import broker as jobs_broker
from jobs.failpoints import JOB_NAMES
from jobs.models import BackgroundJob
from scribes.models import User
from tests.chaos.harness import (
    Account,
    Broker,
    House,
    Program,
    children,
    kill,
    make_job,
    until_it_ends,
    until_it_moves,
)
from tests.conftest import client_of
from tests.counting import counted
from tests.processes import eventually

Rounds = Callable[[int, int], int]


def assert_exact(account: Account, job: BackgroundJob, expected: list[int]) -> None:
    account.check(job, expected)
    assert (account.lost, account.duplicated) == (0, 0)
    assert job.status == "completed"
    assert job.processed_items == len(expected)
    assert job.done_items == job.total_items


# --- 1. Accepted is never lost --------------------------------------------------------------


@pytest.mark.parametrize("fault", ["down", "stopped", "paused", "flushed"])
def test_accepted_while_redis_is(
    fault: str, house: House, broker: Broker, rounds: Rounds, account: Account, monkeypatch
):
    """Every request is answered 202 within 3 s, and every job completes afterwards."""
    account.rounds, account.faults = rounds(16, 250), 1
    people = [User.objects.create_user(f"{n}@example.com") for n in range(account.rounds)]
    publish_to(broker, monkeypatch)
    interrupted: AbstractContextManager[None] = getattr(broker, fault)()
    with interrupted, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, people))
    assert {status for status, _ in answers} == {202}
    assert max(seconds for _, seconds in answers) < 3
    house.beat()
    house.ready_worker()
    completed = BackgroundJob.objects.filter(status="completed")
    eventually(lambda: completed.count() == account.rounds, timeout=300)


def publish_to(broker: Broker, monkeypatch) -> None:
    """This process, which plays the web process, takes the test's broker."""
    from celery import current_app

    monkeypatch.setattr(settings, "REDIS_URL", broker.url)
    monkeypatch.setitem(
        current_app.conf, "broker_url", broker.url.replace("unix://", "redis+socket://")
    )
    jobs_broker._producers.cache_clear()


@pytest.fixture(autouse=True)
def publish_as_before():
    yield
    jobs_broker._producers.cache_clear()


def post(user: User) -> tuple[int, float]:
    start = time.monotonic()
    try:
        response = client_of(user).post("/semantic/regenerate-embeddings")
        return response.status_code, time.monotonic() - start
    finally:
        connections.close_all()


# --- 2. Killed workers ----------------------------------------------------------------------


def test_pool_processes_killed(house: House, rounds: Rounds, account: Account):
    house.beat()
    worker = house.ready_worker()
    account.rounds = account.faults = rounds(4, 80)
    dice = random.Random(1)

    def kill_one() -> None:
        time.sleep(dice.uniform(0, 0.3))
        kill(dice.choice(eventually(lambda: children(worker))))

    kill_again_and_again(account, kill_one)
    assert max(account.recoveries) < 10


def test_whole_workers_killed(house: House, rounds: Rounds, account: Account):
    house.beat()
    account.rounds = account.faults = rounds(2, 20)
    workers = [house.ready_worker()]

    def kill_it() -> None:
        kill(workers.pop())
        workers.append(house.worker())

    kill_again_and_again(account, kill_it)


def kill_again_and_again(account: Account, fault: Callable[[], None]) -> None:
    """Faults while jobs run, one job after the other; each must be exact in the end."""
    jobs = [make_job("0@example.com", 3000, seconds=0.005)]
    until_it_moves(jobs[0])
    while len(account.recoveries) < account.faults:
        fault()
        account.recoveries.append(until_it_moves(jobs[-1]))
        if jobs[-1].is_terminal:
            jobs.append(make_job(f"{len(jobs)}@example.com", 3000, seconds=0.005))
            until_it_moves(jobs[-1])
    for job in jobs:
        assert_exact(account, until_it_ends(job), list(range(3000)))


# --- 3. No stale writer ---------------------------------------------------------------------


def test_stopped_past_the_lease_then_continued(
    house: House, rounds: Rounds, account: Account, tmp_path: Path
):
    """A process has computed its batch, is stopped, and another one finishes the batch."""
    flag = tmp_path / "flag"
    house.beat()
    worker = house.ready_worker(FAILPOINT=f"after_compute:stop:{flag}")
    account.rounds = account.faults = rounds(3, 20)
    for number in range(1, account.rounds + 1):
        flag.touch()
        job = make_job(f"{number}@example.com", 20)
        zombie = stopped_child(worker)
        job = until_it_ends(job)
        before = BackgroundJob.objects.values().get(pk=job.pk)
        zombie.send_signal(signal.SIGCONT)
        eventually(lambda n=number: worker.log.read_text().count(REFUSED) == n)  # type: ignore[misc]
        assert BackgroundJob.objects.values().get(pk=job.pk) == before
        assert_exact(account, job, list(range(20)))


REFUSED = "nothing is written"


def stopped_child(worker: Program) -> psutil.Process:
    def look() -> list[psutil.Process]:
        return [child for child in children(worker) if child.status() == psutil.STATUS_STOPPED]

    return eventually(look)[0]


# --- 4. Exact progress ----------------------------------------------------------------------


def test_eight_workers_on_one_job_with_kills(house: House, rounds: Rounds, account: Account):
    house.beat()
    number, items = rounds(3, 8), rounds(1000, 10_000)
    workers = [
        house.ready_worker(WORKER_CONCURRENCY="1", JOB_PARALLELISM="8") for _ in range(number)
    ]
    account.rounds = 1
    job = make_job("a@example.com", items, seconds=0.01, plans={"5": "raise", "6": "skip"})
    seen: list[tuple[int, int]] = []
    with watching(job, seen):
        until_it_moves(job)
        for worker in workers[1:]:
            kill(children(worker)[0])
            account.faults += 1
            time.sleep(0.5)
        job = until_it_ends(job)
    account.check(job, [n for n in range(items) if n not in (5, 6)])
    assert (account.lost, account.duplicated) == (0, 0)
    assert (job.status, job.failed_items, job.skipped_items) == ("completed", 1, 1)
    assert job.done_items == job.total_items == items
    assert seen == sorted(seen)
    assert max(percent for percent, _ in seen) <= 100


class watching:
    """Reads the job's progress all the time, from another connection."""

    def __init__(self, job: BackgroundJob, seen: list[tuple[int, int]]) -> None:
        self.stop = Event()
        self.thread = Thread(target=self.look, args=(job.pk, seen))

    def look(self, job_id, seen: list[tuple[int, int]]) -> None:
        while not self.stop.is_set():
            job = BackgroundJob.objects.get(pk=job_id)
            seen.append((job.progress_percent, job.done_items))
            time.sleep(0.01)
        connections.close_all()

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *error) -> None:
        self.stop.set()
        self.thread.join()


# --- 6. Fair --------------------------------------------------------------------------------


def test_a_small_job_beside_a_huge_one(house: House, rounds: Rounds, account: Account):
    house.beat()
    house.ready_worker()
    account.rounds = 1
    alone = took(make_job("small@example.com", 100, seconds=0.01))
    huge = make_job("huge@example.com", 20_000, seconds=0.01)
    until_it_moves(huge)
    beside = took(make_job("other@example.com", 100, seconds=0.01))
    huge.refresh_from_db()
    assert huge.status == "running"
    assert beside <= 10 * alone
    huge.cancel()


def took(job: BackgroundJob) -> float:
    """Seconds from the start of the work: how long the reconciler took to see it is not the point."""
    job = until_it_ends(job)
    assert job.started_at
    assert job.completed_at
    return (job.completed_at - job.started_at).total_seconds()


# --- 7. Poison stays alone ------------------------------------------------------------------


def test_items_that_raise_or_kill_or_hang(house: House, account: Account):
    house.beat()
    house.ready_worker(TASK_TIME_LIMIT="1", JOB_LEASE_SECONDS="1")
    plans = {"11": "raise", "22": "memory", "33": "exit", "44": "hang"}
    account.rounds, account.faults = 1, len(plans)
    job = until_it_ends(make_job("a@example.com", 60, plans=plans))
    expected = [n for n in range(60) if str(n) not in plans]
    account.check(job, expected)
    assert (account.lost, account.duplicated) == (0, 0)
    assert (job.status, job.processed_items, job.failed_items) == ("completed", 56, 4)
    causes = dict(job.failures.values_list("item_id", "error_class"))
    assert causes == {
        11: "ArithmeticError",
        22: "MemoryError",
        33: "AttemptsUsedUp",
        44: "AttemptsUsedUp",
    }


# --- 8. Cancel ------------------------------------------------------------------------------


def test_cancel_stops_within_a_batch(house: House, rounds: Rounds, account: Account):
    house.beat()
    house.ready_worker()
    account.rounds = rounds(2, 20)
    for number in range(account.rounds):
        job = make_job(f"{number}@example.com", 2000, seconds=0.01)
        until_it_moves(job)
        assert job.cancel()
        job.refresh_from_db()
        kept = counted(job)
        time.sleep(0.5)
        assert counted(job) == kept
        assert job.processed_items == len(kept) < 2000
        assert not job.is_terminal or job.status == "cancelled"


# --- 12. Two of everything ------------------------------------------------------------------


def test_two_beats_and_two_workers(house: House, account: Account):
    account.rounds = 1
    for _ in range(2):
        house.beat()
        house.ready_worker()
    job = until_it_ends(make_job("a@example.com", 1000, seconds=0.002))
    assert_exact(account, job, list(range(1000)))


# --- 13. Self-healing -----------------------------------------------------------------------


def test_redis_restarted(house: House, broker: Broker, rounds: Rounds, account: Account):
    house.beat()
    house.ready_worker()
    account.rounds = account.faults = rounds(2, 20)
    for number in range(account.rounds):
        job = make_job(f"{number}@example.com", 4000, seconds=0.01)
        until_it_moves(job)
        (broker.kill if number % 2 else broker.shutdown)()
        time.sleep(1)
        broker.start()
        time.sleep(0.5)
        account.recoveries.append(until_it_moves(job, timeout=60))
        job.cancel()
    assert max(account.recoveries) <= 60


def test_postgresql_crashed(house: House, rounds: Rounds, account: Account):
    """One of its processes killed: PostgreSQL ends all sessions and recovers."""
    house.beat()
    house.ready_worker()
    account.rounds = account.faults = rounds(1, 10)
    job = make_job("a@example.com", 600 * account.rounds, seconds=0.01)
    until_it_moves(job)
    for _ in range(account.rounds):
        crash_postgresql()
        account.recoveries.append(until_it_moves(job, timeout=60))
    job = until_it_ends(job)
    assert_exact(account, job, list(range(job.total_items)))


def crash_postgresql() -> None:
    """Kill a server process, and wait until the others have been ended and new ones come."""
    parameters = connection.get_connection_params()
    parameters = {k: v for k, v in parameters.items() if k not in ("cursor_factory", "context")}
    with psycopg.connect(**parameters) as victim, psycopg.connect(**parameters) as witness:
        psutil.Process(victim.info.backend_pid).kill()
        eventually(lambda: not answers(witness))
    connection.close()
    eventually(lambda: reachable(parameters))


def answers(session: psycopg.Connection) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def reachable(parameters: dict[str, Any]) -> bool:
    try:
        psycopg.connect(**parameters).close()
    except psycopg.OperationalError:
        return False
    return True


# --- Failpoints -----------------------------------------------------------------------------

# Four of them are enough for every day.
MARKS = {
    name: pytest.mark.long
    for name in JOB_NAMES
    if name not in ("after_claim", "before_commit", "after_commit", "before_publish")
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS.get(name, ())) for name in JOB_NAMES]
)
def test_a_process_killed_exactly(name: str, house: House, account: Account, tmp_path: Path):
    flag = tmp_path / "flag"
    flag.touch()
    account.rounds = account.faults = 1
    house.beat()
    house.worker(FAILPOINT=f"{name}:kill:{flag}")
    job = until_it_ends(make_job("a@example.com", 200, seconds=0.002))
    assert not flag.exists()
    assert_exact(account, job, list(range(200)))
