"""Kills of processes that work as they are shipped: with the default settings, and on real notes."""

from __future__ import annotations

import time

import numpy as np
import pytest

from jobs.models import BackgroundJob
from notes.embedding import encoder
from notes.indexing import passages_of
from notes.models import Note
from scribes.management.commands.demo import psalm
from scribes.models import User
from tests.chaos.harness import (
    Account,
    House,
    accept,
    children,
    kill,
    make_job,
    until_it_ends,
    until_it_moves,
)
from tests.chaos.test_chaos import Rounds, assert_exact
from tests.processes import eventually


@pytest.mark.long
def test_notes_embedded_while_processes_are_killed(house: House, account: Account):
    """The job that all this is for: in the end every vector is what the model makes of its text."""
    house.beat()
    worker = house.ready_worker(JOB_BATCH_SIZE="5")
    user = User.objects.create_user("alice@example.com")
    for number in range(1, 51):
        Note.objects.create(user=user, **psalm(number))
    account.rounds, account.faults = 1, 10
    job = accept(user, "embedding_regeneration", {})
    while len(account.recoveries) < account.faults:
        until_it_moves(job)
        kill(eventually(lambda: children(worker))[0])
        account.recoveries.append(until_it_moves(job))
        if job.is_terminal:
            job = accept(user, "embedding_regeneration", {})
    job = until_it_ends(job)
    assert (job.status, job.processed_items, job.failed_items) == ("completed", 50, 0)
    for note in Note.objects.all():
        assert_vectors_are_right(note)


def assert_vectors_are_right(note: Note) -> None:
    stored = np.array(note.passages.order_by("ordinal").values_list("vector", flat=True))
    expected = encoder().embed(passages_of(note, encoder())[1])
    assert stored.shape == expected.shape
    assert (stored * expected).sum(axis=1).min() >= 0.999


def test_a_pool_process_killed_with_default_settings(
    house_as_shipped: House, rounds: Rounds, account: Account
):
    """From the kill to the next claim of its batch, long before its lease has run out."""
    house = house_as_shipped
    house.beat()
    worker = house.ready_worker()
    account.rounds = account.faults = rounds(1, 5)
    for number in range(account.rounds):
        # A batch for each process, so that the message which comes again waits for nobody else's.
        job = make_job(f"{number}@example.com", 200, seconds=0.05)
        eventually(lambda job=job: job.batches.filter(status="leased").count() == 2)  # type: ignore[misc]
        before = set(job.batches.values_list("pk", "claim_seq"))
        start = time.monotonic()
        kill(children(worker)[0])
        eventually(lambda job=job, before=before: taken_over(job, before))  # type: ignore[misc]
        account.recoveries.append(time.monotonic() - start)
        assert_exact(account, until_it_ends(job), list(range(200)))
    assert max(account.recoveries) < 10


def taken_over(job: BackgroundJob, before: set[tuple[int, int]]) -> bool:
    """One of these batches has been claimed again."""
    now = dict(job.batches.filter(status="leased").values_list("pk", "claim_seq"))
    return any(now.get(batch, claim) > claim for batch, claim in before)


@pytest.mark.long
def test_the_only_worker_killed_with_default_settings(house_as_shipped: House, account: Account):
    """From the kill to the next claim of the batch that was in work."""
    house = house_as_shipped
    house.beat()
    worker = house.ready_worker()
    account.rounds = account.faults = 5
    job = make_job("a@example.com", 60_000, seconds=0.02)
    leased = job.batches.filter(status="leased")
    again = leased.filter(attempts__gt=1)
    for _ in range(account.faults):
        # Just after a batch has ended and the next been claimed, so that the kill meets one at work.
        until_it_moves(job)
        eventually(lambda: leased.count() == 2)
        kill(worker)
        start = time.monotonic()
        worker = house.worker()
        eventually(again.exists, timeout=120)
        account.recoveries.append(time.monotonic() - start)
        eventually(lambda: not again.exists())
    job.cancel()
    assert max(account.recoveries) <= 120
    assert sorted(account.recoveries)[2] <= 60
