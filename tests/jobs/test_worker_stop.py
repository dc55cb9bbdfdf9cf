"""A worker that gets SIGTERM, as systemd and Docker send it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.runner import enqueue
from scribes.models import User
from tests.helpers.counting import counted
from tests.helpers.processes import Process, environment, eventually, running


def counting_worker(stack: ExitStack, folder: Path, name: str) -> Process:
    command = f"celery -A scribes worker --include tests.helpers.counting -n {name}@%h".split()
    env = environment(WORKER_CONCURRENCY="1", JOB_BATCH_SIZE="10")
    return stack.enter_context(running(command, folder / f"{name}.log", env))


@pytest.mark.django_db(transaction=True)
def test_worker_finishes_its_batch_when_it_is_told_to_stop(alice: User, tmp_path: Path):
    """Another worker goes on with the job."""
    with ExitStack() as stack:
        workers = [counting_worker(stack, tmp_path, name) for name in ("leaving", "staying")]
        for worker in workers:
            worker.await_output("is ready")
        job, _ = enqueue(alice, "counting", {"count": 60, "seconds": 0.05})
        eventually(lambda: job.batches.filter(status="leased").count() == 2)
        workers[0].popen.terminate()
        assert workers[0].await_end() == 0

        def ended() -> bool:
            job.refresh_from_db()
            return job.is_terminal

        eventually(ended)
    assert (job.status, job.processed_items) == ("completed", 60)
    assert counted(job) == list(range(60))
    # No attempt was lost.
    assert set(job.batches.values_list("attempts", flat=True)) == {1}
    batches = [worker.output.count("processed, 0 failed") for worker in workers]
    assert batches[0] >= 1
    assert sum(batches) == 6
    assert batches[0] < batches[1]
