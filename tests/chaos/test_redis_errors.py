"""Redis answers with errors for a while: the worker lives on, and works again afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.conf import settings

from celery_app import QUEUES
from scribes.messaging import broker as messaging_broker
from scribes.messaging import unreadable
from scribes.monitoring import heartbeats
from scribes.monitoring.probes.redis import claim_redis
from tests.chaos.broker import Broker
from tests.chaos.deployment import Deployment, Program, kill, pool_processes
from tests.chaos.fault_report import FaultReport
from tests.chaos.jobs import await_end, await_held_batches, await_progress, create_counting_job
from tests.helpers.counting import counted
from tests.helpers.processes import eventually

Rounds = Callable[[int, int], int]

# What beat or the worker logs while Redis answers with this error.
ERRORS = {
    "full": "used memory > 'maxmemory'",
    "restricted": "Cannot connect to",
    "short_of_replicas": "Cannot connect to",
    "read_only": "Cannot connect to",
    "outdated": "Cannot connect to",
    "busy": "Cannot connect to",
}


def key(name: str) -> str:
    return f"{settings.REDIS_KEY_PREFIX}{name}"


def await_line(text: str, *programs: Program) -> None:
    """Wait until one of the programs logs this text once more."""

    def count() -> int:
        return sum(program.output.count(text) for program in programs)

    before = count()
    eventually(lambda: count() > before)


@pytest.mark.parametrize("error", ERRORS)
def test_job_completes_although_redis_is_at_times(
    error: str, deployment: Deployment, broker: Broker, rounds: Rounds, fault_report: FaultReport
):
    beat, worker = deployment.beat(), deployment.ready_worker()
    job = create_counting_job("0@example.com", 2000, seconds=0.005)
    await_progress(job)
    fault_report.rounds, fault_report.faults = 1, rounds(2, 5)
    for _ in range(fault_report.faults):
        with getattr(broker, error)():
            await_line(ERRORS[error], worker, beat)
        fault_report.recoveries.append(await_progress(job))
    await_end(job)
    fault_report.assert_saved_once(job, range(2000))
    assert worker.poll() is beat.poll() is None
    assert "Traceback" not in beat.output


def test_worker_starts_although_redis_is_full(
    deployment: Deployment, broker: Broker, publishing: None
):
    """Its work frees memory: the queues may be what fills it."""
    for queue in QUEUES:
        assert messaging_broker.send("scribes.tasks.heartbeat", (), queue, "Heartbeat: 1")
    with broker.full():
        claim_redis()
        worker = deployment.ready_worker()
        consumed = {heartbeats.of_queue(queue) for queue in QUEUES}
        eventually(lambda: consumed <= heartbeats.ages().keys())
    assert worker.poll() is None
    assert "Traceback" not in worker.output


def test_worker_goes_on_when_a_process_dies_while_redis_is_full(
    deployment: Deployment, broker: Broker
):
    """Redis cannot take the message back, and the worker has one process only."""
    deployment.beat()
    worker = deployment.ready_worker(WORKER_CONCURRENCY="1")
    job = create_counting_job("0@example.com", 40, seconds=0.25)
    # A batch takes seconds, so that its process is killed in the midst of it.
    await_held_batches(job, 1)
    with broker.full():
        for process in pool_processes(worker):
            kill(process)
        await_line("Redis refused to take a message back", worker)
    await_end(job)
    assert counted(job) == list(range(40))
    assert worker.poll() is None


@pytest.mark.parametrize("name", ["control", "unacked", "unacked_index", "_kombu.binding.control"])
def test_worker_deletes_a_key_of_a_wrong_type(
    name: str, deployment: Deployment, broker: Broker, publishing: None
):
    worker = deployment.ready_worker()
    eventually(lambda: not broker.has_messages("control"))
    broker.client.set(key(name), "text")
    messaging_broker.producers.cache_clear()

    def is_working() -> bool:
        messaging_broker.send("scribes.tasks.heartbeat", (), "control", "Heartbeat: 1")
        return broker.client.type(key(name)) != b"string" and not broker.has_messages("control")

    eventually(is_working)
    assert worker.poll() is None
    (dropped,) = unreadable.latest()
    assert dropped.reason.startswith("TypeError: the key is a string, not a ")
