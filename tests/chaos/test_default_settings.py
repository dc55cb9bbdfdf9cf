"""How fast work goes on after a kill with the default settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.chaos.deployment import Deployment, kill, pool_processes
from tests.chaos.fault_report import FaultReport
from tests.chaos.jobs import (
    await_end,
    await_held_batches,
    await_progress,
    create_counting_job,
    is_reclaimed,
)
from tests.helpers.processes import eventually

Rounds = Callable[[int, int], int]


def test_default_settings_recover_from_a_killed_pool_process(
    deployment_as_shipped: Deployment, rounds: Rounds, fault_report: FaultReport
):
    """Its batch is claimed again long before its lease expires, by the repeated message.

    The lease has an hour here, so that nothing else can take the batch.
    """
    deployment = deployment_as_shipped
    deployment.beat()
    worker = deployment.ready_worker(JOB_LEASE_SECONDS="3600")
    fault_report.rounds = fault_report.faults = rounds(1, 5)
    for number in range(fault_report.rounds):
        # Two batches, so that the repeated message waits for no other batch.
        job = create_counting_job(f"{number}@example.com", 200, seconds=0.05)
        before = await_held_batches(job, 2)
        start = time.monotonic()
        kill(pool_processes(worker)[0])
        eventually(partial(is_reclaimed, job, before))
        fault_report.recoveries.append(time.monotonic() - start)
        fault_report.assert_saved_once(await_end(job), range(200))


@pytest.mark.long
def test_default_settings_recover_from_a_killed_worker(
    deployment_as_shipped: Deployment, fault_report: FaultReport
):
    """It is the only one. The batch in progress is claimed again after its lease has expired.

    That takes half a minute, on a busy machine longer; without the reconciler, it would never happen.
    """
    deployment = deployment_as_shipped
    deployment.beat()
    worker = deployment.ready_worker()
    fault_report.rounds = fault_report.faults = 5
    job = create_counting_job("a@example.com", 60_000, seconds=0.02)
    reclaimed = job.batches.held().filter(attempts__gt=1)
    for _ in range(fault_report.faults):
        # A batch has just ended and the next one been claimed, so the kill interrupts its work.
        await_progress(job)
        await_held_batches(job, 2)
        kill(worker)
        start = time.monotonic()
        worker = deployment.worker()
        eventually(reclaimed.all().exists)
        fault_report.recoveries.append(time.monotonic() - start)
        eventually(lambda: not reclaimed.all().exists())
    job.cancel()
