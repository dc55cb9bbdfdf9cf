"""Jobs of real workers while processes are killed, stopped and flooded, and servers fail."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread

import psutil
import pytest
from django.db import connections

from jobs import reconciler, runner
from jobs.models import BackgroundJob
from scribes.messaging import broker as messaging_broker
from scribes.models import User
from tests.chaos.broker import Broker
from tests.chaos.deployment import (
    Deployment,
    Program,
    crash_postgresql,
    kill,
    pool_processes,
)
from tests.chaos.fault_report import FaultReport
from tests.chaos.jobs import (
    await_end,
    await_no_held_batch,
    await_progress,
    create_counting_job,
)
from tests.helpers.counting import counted
from tests.helpers.people import client_of
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually

Rounds = Callable[[int, int], int]

# The worker's log when a process lost its lease or its job.
REFUSED = "nothing is written"
CONNECTION_LOST = "Connection to broker lost"


# --- 1. Accepted jobs are never lost --------------------------------------------------------


@pytest.mark.parametrize("fault", ["down", "stopped", "paused", "flushed"])
def test_accepted_jobs_complete_when_redis_is(
    fault: str,
    deployment: Deployment,
    broker: Broker,
    publishing: None,
    rounds: Rounds,
    fault_report: FaultReport,
):
    """Every request is answered 202 during the outage, and every job completes afterwards.

    Without time-outs, the answers would not come before the outage ends. The table shows how long they
    took, in place of recoveries.
    """
    fault_report.rounds, fault_report.faults = rounds(16, 250), 1
    users = [User.objects.create_user(f"{n}@example.com") for n in range(fault_report.rounds)]
    outage: AbstractContextManager[None] = getattr(broker, fault)()
    with ThreadPoolExecutor(8) as pool, outage:
        answers = list(pool.map(request_regeneration, users, timeout=LONGEST_WAIT_SECONDS))
    assert {status for status, _ in answers} == {202}
    fault_report.recoveries = [seconds for _, seconds in answers]
    deployment.beat()
    deployment.ready_worker()
    completed = BackgroundJob.objects.filter(status="completed")
    eventually(lambda: completed.count() == fault_report.rounds, completed.count)


def request_regeneration(user: User) -> tuple[int, float]:
    """The status of the answer, and the seconds that it took."""
    start = time.monotonic()
    try:
        response = client_of(user).post("/semantic/regenerate-embeddings")
        return response.status_code, time.monotonic() - start
    finally:
        connections.close_all()


# --- 2. Killed processes --------------------------------------------------------------------


def test_items_are_saved_once_when_pool_processes_are_killed(
    deployment: Deployment, rounds: Rounds, fault_report: FaultReport
):
    deployment.beat()
    worker = deployment.ready_worker()
    fault_report.rounds = fault_report.faults = rounds(4, 80)
    dice = random.Random(1)

    def kill_one() -> None:
        time.sleep(dice.uniform(0, 0.3))  # at any moment of a batch
        kill(dice.choice(eventually(lambda: pool_processes(worker))))

    repeat_fault_during_jobs(fault_report, kill_one)


def test_items_are_saved_once_when_workers_are_killed(
    deployment: Deployment, rounds: Rounds, fault_report: FaultReport
):
    deployment.beat()
    fault_report.rounds = fault_report.faults = rounds(2, 20)
    workers = [deployment.ready_worker()]

    def replace_worker() -> None:
        kill(workers.pop())
        workers.append(deployment.worker())

    repeat_fault_during_jobs(fault_report, replace_worker)


def repeat_fault_during_jobs(fault_report: FaultReport, fault: Callable[[], None]) -> None:
    """Repeat the fault while jobs run one after the other, and check all of them in the end."""
    items = range(3000)
    jobs = [create_counting_job("0@example.com", len(items), seconds=0.005)]
    await_progress(jobs[0])
    while len(fault_report.recoveries) < fault_report.faults:
        fault()
        fault_report.recoveries.append(await_progress(jobs[-1]))
        if jobs[-1].is_terminal:
            email = f"{len(jobs)}@example.com"
            jobs.append(create_counting_job(email, len(items), seconds=0.005))
            await_progress(jobs[-1])
    for job in jobs:
        fault_report.assert_saved_once(await_end(job), items)


# Four of them are enough for the short version.
SHORT_FAILPOINTS = ("after_claim", "before_commit", "after_commit", "before_publish")
FAILPOINTS = (*runner.FAILPOINTS, *reconciler.FAILPOINTS, *messaging_broker.FAILPOINTS)


@pytest.mark.parametrize(
    "failpoint",
    [
        pytest.param(name, marks=() if name in SHORT_FAILPOINTS else pytest.mark.long)
        for name in FAILPOINTS
    ],
)
def test_items_are_saved_once_when_a_process_is_killed(
    failpoint: str, deployment: Deployment, fault_report: FaultReport, tmp_path: Path
):
    flag = tmp_path / "flag"
    flag.touch()
    fault_report.rounds = fault_report.faults = 1
    deployment.beat()
    deployment.worker(FAILPOINT=f"{failpoint}:kill:{flag}")
    job = await_end(create_counting_job("a@example.com", 200, seconds=0.002))
    assert not flag.exists()
    fault_report.assert_saved_once(job, range(200))


# --- 3. Late writers ------------------------------------------------------------------------


def test_process_saves_nothing_when_resumed_after_its_lease(
    deployment: Deployment, rounds: Rounds, fault_report: FaultReport, tmp_path: Path
):
    """It is stopped after it computed a batch. Another process finishes the batch meanwhile."""
    flag = tmp_path / "flag"
    deployment.beat()
    worker = deployment.ready_worker(FAILPOINT=f"after_compute:stop:{flag}")
    fault_report.rounds = fault_report.faults = rounds(3, 20)
    for number in range(fault_report.rounds):
        flag.touch()
        job = create_counting_job(f"{number}@example.com", 20)
        [stopped] = eventually(lambda: stopped_processes(worker))
        job = await_end(job)
        before = BackgroundJob.objects.values().get(pk=job.pk)
        refused = worker.output.count(REFUSED)
        stopped.send_signal(signal.SIGCONT)
        await_output(worker, REFUSED, refused + 1)
        assert BackgroundJob.objects.values().get(pk=job.pk) == before
        fault_report.assert_saved_once(job, range(20))


def stopped_processes(worker: Program) -> list[psutil.Process]:
    return [p for p in pool_processes(worker) if p.status() == psutil.STATUS_STOPPED]


def await_output(worker: Program, text: str, count: int) -> None:
    """Wait until the worker has logged the text at least so often."""
    eventually(lambda: worker.output.count(text) >= count)


def test_job_saves_nothing_more_when_cancelled(
    deployment: Deployment, rounds: Rounds, fault_report: FaultReport
):
    deployment.beat()
    worker = deployment.ready_worker()
    fault_report.rounds = rounds(2, 20)
    for number in range(fault_report.rounds):
        job = create_counting_job(f"{number}@example.com", 2000, seconds=0.01)
        await_progress(job)
        refused = worker.output.count(REFUSED)
        assert job.cancel()
        saved = counted(job)
        # The processes that hold these batches notice the cancellation at the latest as they save.
        await_output(worker, REFUSED, refused + job.batches.held().count())
        job.refresh_from_db()
        assert counted(job) == saved
        assert job.processed_items == len(saved) < 2000
        assert job.status == "cancelled"


# --- 4. Progress ----------------------------------------------------------------------------


def test_progress_is_exact_when_many_workers_share_a_job(
    deployment: Deployment, rounds: Rounds, fault_report: FaultReport
):
    """A process of each worker but the first is killed on the way."""
    deployment.beat()
    number, items = rounds(3, 8), rounds(1000, 10_000)
    workers = [
        deployment.ready_worker(WORKER_CONCURRENCY="1", JOB_PARALLELISM="8") for _ in range(number)
    ]
    fault_report.rounds = 1
    plans = {"5": "raise", "6": "skip"}
    job = create_counting_job("a@example.com", items, seconds=0.01, plans=plans)
    with watched_progress(job) as seen:
        await_progress(job)
        for worker in workers[1:]:
            kill(pool_processes(worker)[0])
            fault_report.faults += 1
            await_progress(job)
        job = await_end(job)
    fault_report.count_effects(job, set(range(items)) - {5, 6})
    assert (fault_report.lost, fault_report.duplicated) == (0, 0)
    assert (job.status, job.failed_items, job.skipped_items) == ("completed", 1, 1)
    assert job.done_items == job.total_items == items
    assert seen == sorted(seen)
    assert max(percent for percent, _ in seen) <= 100


@contextmanager
def watched_progress(job: BackgroundJob) -> Iterator[list[tuple[int, int]]]:
    """Read the job's progress all the time from another connection: (percent, done items)."""
    seen: list[tuple[int, int]] = []
    is_over = Event()

    def watch() -> None:
        while not is_over.wait(0.01):
            row = BackgroundJob.objects.get(pk=job.pk)
            seen.append((row.progress_percent, row.done_items))
        connections.close_all()

    thread = Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


# --- 5. Fairness ----------------------------------------------------------------------------


def test_small_job_is_not_starved_when_a_huge_job_runs(
    deployment: Deployment, fault_report: FaultReport
):
    deployment.beat()
    deployment.ready_worker()
    fault_report.rounds = 1
    alone = running_seconds(create_counting_job("small@example.com", 100, seconds=0.01))
    huge = create_counting_job("huge@example.com", 20_000, seconds=0.01)
    await_progress(huge)
    beside = running_seconds(create_counting_job("other@example.com", 100, seconds=0.01))
    huge.refresh_from_db()
    assert huge.status == "running"
    assert beside <= 10 * alone
    huge.cancel()


def running_seconds(job: BackgroundJob) -> float:
    """From the start of the work to its end, without the wait for the reconciler before."""
    job = await_end(job)
    assert job.started_at
    assert job.completed_at
    return (job.completed_at - job.started_at).total_seconds()


# --- 6. Bad items ---------------------------------------------------------------------------


def test_only_bad_items_fail_when_they_raise_kill_or_hang(
    deployment: Deployment, fault_report: FaultReport
):
    deployment.beat()
    deployment.ready_worker(TASK_TIME_LIMIT_SECONDS="1", JOB_LEASE_SECONDS="1")
    plans = {"11": "raise", "22": "memory", "33": "exit", "44": "hang"}
    fault_report.rounds, fault_report.faults = 1, len(plans)
    job = await_end(create_counting_job("a@example.com", 60, plans=plans))
    fault_report.count_effects(job, {n for n in range(60) if str(n) not in plans})
    assert (fault_report.lost, fault_report.duplicated) == (0, 0)
    assert (job.status, job.processed_items, job.failed_items) == ("completed", 56, 4)
    causes = dict(job.failures.values_list("item_id", "error_class"))
    assert causes == {
        11: "ArithmeticError",
        22: "MemoryError",
        33: "AttemptsUsedUp",
        44: "AttemptsUsedUp",
    }


# --- 7. Everything twice --------------------------------------------------------------------


def test_items_are_saved_once_when_two_beats_and_workers_run(
    deployment: Deployment, fault_report: FaultReport
):
    fault_report.rounds = 1
    for _ in range(2):
        deployment.beat()
        deployment.ready_worker()
    job = await_end(create_counting_job("a@example.com", 1000, seconds=0.002))
    fault_report.assert_saved_once(job, range(1000))


# --- 8. Servers that fail -------------------------------------------------------------------


def test_jobs_go_on_when_redis_restarts(
    deployment: Deployment, broker: Broker, rounds: Rounds, fault_report: FaultReport
):
    """Redis is stopped by SIGTERM and SIGKILL in turn."""
    deployment.beat()
    worker = deployment.ready_worker()
    fault_report.rounds = fault_report.faults = rounds(2, 20)
    for number in range(fault_report.rounds):
        job = create_counting_job(f"{number}@example.com", 4000, seconds=0.01)
        await_progress(job)
        noticed = worker.output.count(CONNECTION_LOST)
        (broker.kill if number % 2 else broker.shut_down)()
        await_output(worker, CONNECTION_LOST, noticed + 1)
        # Batches in progress need no broker: what happens after them is the recovery.
        await_no_held_batch(job)
        broker.start()
        fault_report.recoveries.append(await_progress(job))
        job.cancel()


def test_jobs_go_on_when_postgresql_crashes(
    deployment: Deployment, rounds: Rounds, fault_report: FaultReport
):
    """A server process is killed, so that PostgreSQL ends all sessions and recovers."""
    deployment.beat()
    deployment.ready_worker()
    fault_report.rounds = fault_report.faults = rounds(1, 10)
    items = range(600 * fault_report.rounds)
    job = create_counting_job("a@example.com", len(items), seconds=0.01)
    await_progress(job)
    for _ in range(fault_report.rounds):
        crash_postgresql()
        fault_report.recoveries.append(await_progress(job))
    fault_report.assert_saved_once(await_end(job), items)
