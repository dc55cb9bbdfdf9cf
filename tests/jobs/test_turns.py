"""Users take turns by batch, and the time limit counts a job's own work."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import count

import pytest
from django.db import connection, transaction
from django.db.models import F

from jobs.job_types import JOB_TYPES
from jobs.models import BackgroundJob, JobBatch
from jobs.reconciler import dispatch_waiting_batches, reconcile, republish
from jobs.runner import enqueue, publish_batches, run_claimed
from jobs.tasks import plan_job
from scribes.messaging import broker
from scribes.models import User
from tests.helpers.counting import Counting, counted
from tests.helpers.jobs import (
    LONG_AGO,
    batch_ids,
    claim,
    deliver,
    expire_leases,
    in_flight,
    run_batch,
    start_counting,
)
from tests.helpers.plans import plans_of
from tests.helpers.processes import run_concurrently

TYPES = [Counting.name]


@pytest.fixture(autouse=True)
def small_batches(settings) -> None:
    settings.JOB_BATCH_SIZE = 10


def newcomer(name: str) -> User:
    return User.objects.create_user(f"{name}@example.com")


def start(user: User, job_type: str, count: int) -> None:
    """A planned job of this type."""
    job, _ = enqueue(user, job_type, {"count": count})
    plan_job(str(job.pk))


class SecondCounting(Counting):
    """Another job type in the same queue."""

    name = "second_counting"


def run_in_turn(message: str = "a message") -> Iterator[User]:
    """Run all batches, as one process would that gets message after message; their users."""
    while batch := JobBatch.claim_next(TYPES, message):
        run_claimed(batch)
        yield batch.job.user


def test_newcomer_comes_next(alice: User, bob: User):
    start_counting(alice, 200)
    for _ in range(3):
        claim_next()
    start_counting(bob, 10)
    charlie = newcomer("charlie")
    start_counting(charlie, 10)
    assert [claim_next().job.user for _ in range(3)] == [bob, charlie, alice]


def claim_next() -> JobBatch:
    batch = JobBatch.claim_next(TYPES, "")
    assert batch
    return batch


def run_next(job_types: list[str] = TYPES) -> User:
    """Run the next batch; its user."""
    batch = JobBatch.claim_next(job_types, "")
    assert batch
    run_claimed(batch)
    return batch.job.user


def test_users_with_long_jobs_take_turns(alice: User, bob: User):
    start_counting(alice, 100)
    start_counting(bob, 100)
    users = list(run_in_turn())
    assert (users.count(alice), users.count(bob)) == (10, 10)
    ahead = [users[:n].count(alice) - users[:n].count(bob) for n in range(len(users))]
    assert max(map(abs, ahead)) <= 1


def test_stream_of_newcomers_does_not_starve_a_long_job(alice: User):
    start_counting(alice, 100)
    run_claimed(claim_next())
    served = []
    for n in range(40):
        start_counting(newcomer(f"user{n}"), 10)
        batch = claim_next()
        run_claimed(batch)
        served.append(batch.job.user)
    assert served.count(alice) >= 2


def test_two_jobs_of_a_user_share_its_turns(alice: User, bob: User, monkeypatch):
    monkeypatch.setitem(JOB_TYPES, SecondCounting.name, SecondCounting())
    start_counting(alice, 100)
    start(alice, SecondCounting.name, 100)
    start_counting(bob, 100)
    users = [run_next([*TYPES, SecondCounting.name]) for _ in range(20)]
    assert 9 <= users.count(bob) <= 11


def test_crash_leaves_the_turns_of_its_user(alice: User, bob: User):
    """Nothing is in line or in work when bob's job comes. Alice's goes on beside it all the same."""
    job = start_counting(alice, 400)
    for _ in range(20):
        run_next()
    while JobBatch.claim_next(TYPES, "a process that dies"):
        expire_leases(job)
    JobBatch.release_expired()
    start_counting(bob, 400)
    dispatch_waiting_batches()
    users = [run_next() for _ in range(10)]
    assert 4 <= users.count(alice) <= 6


def test_repeated_batch_keeps_the_turns_of_its_user(alice: User, bob: User):
    """A batch that is tried again has waited for long, but is not the start of the line."""
    start_counting(alice, 400)
    repeated = claim_next()
    for _ in range(20):
        run_next()
    repeated.release("no luck")
    dispatch_waiting_batches()
    while claim_next() != repeated:
        pass
    JobBatch.objects.held().exclude(pk=repeated.pk).update(lease_expires_at=LONG_AGO)
    start_counting(bob, 400)
    JobBatch.release_expired()
    dispatch_waiting_batches()
    users = [run_next() for _ in range(10)]
    assert 4 <= users.count(alice) <= 6


def test_split_batch_keeps_the_turns_of_its_user(alice: User, bob: User):
    """The parts of a batch that kills its process are rows of the same user."""
    start_counting(alice, 10)
    JobBatch.objects.update(attempts=3)
    run_claimed(claim_next())
    start_counting(bob, 10)
    assert bob in [claim_next().job.user for _ in range(2)]


def test_message_runs_the_batch_whose_turn_it_is(alice: User, bob: User):
    """Each message serves one batch, so as many messages as batches run them all."""
    jobs = [start_counting(alice, 40), start_counting(bob, 40)]
    messages = [pk for job in jobs for pk in batch_ids(job)]
    deliver(messages[0])
    deliver(messages[1])
    assert [len(counted(job)) for job in jobs] == [10, 10]
    for message in messages[2:]:
        deliver(message)
    assert [len(counted(job)) for job in jobs] == [40, 40]


def test_message_serves_only_types_of_its_queue(alice: User, bob: User, monkeypatch):
    job, other = start_counting(alice, 10), start_counting(bob, 10)
    BackgroundJob.objects.filter(pk=job.pk).update(job_type="embedding_regeneration")
    (message,) = batch_ids(other)
    deliver(message)
    assert len(counted(other)) == 10
    assert job.batches.get().status == "pending"


def test_message_of_a_deleted_job_serves_others(alice: User, bob: User):
    """Otherwise bob's batch would have no message, if his ran the batch of the deleted job."""
    job, other = start_counting(alice, 10), start_counting(bob, 10)
    (message,) = batch_ids(job)
    job.delete()
    deliver(message)
    assert len(counted(other)) == 10


def test_redelivered_message_takes_over_its_own_batch(alice: User, bob: User):
    start_counting(alice, 20)
    held = JobBatch.claim_next(TYPES, "the message")
    assert held
    start_counting(bob, 10)
    again = JobBatch.claim_next(TYPES, "the message")
    assert again
    assert (again.pk, again.claim_seq) == (held.pk, held.claim_seq + 1)


@pytest.mark.parametrize("ending", ["cancel", "fail"])
def test_batches_of_an_ended_job_are_not_in_line(alice: User, bob: User, ending: str):
    job = start_counting(alice, 100)
    assert job.cancel() if ending == "cancel" else job.fail("stopped")
    assert not JobBatch.objects.dispatched()
    start_counting(bob, 10)
    assert claim_next().job.user == bob


def test_next_batch_is_found_by_the_index(alice: User):
    job = start_counting(alice, 3000)
    JobBatch.dispatch(job, 300)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE job_batches")
    plans = plans_of(claim_next, '"turn" ASC')
    (scan,) = [
        node for nodes in plans for node in nodes if node.get("Relation Name") == "job_batches"
    ]
    assert (scan["Index Name"], scan["Actual Rows"]) == ("batches_in_turn", 1)


# --- Messages -------------------------------------------------------------------------------


@pytest.mark.usefixtures("empty_queues")
def test_no_batch_is_lost_while_its_queue_has_messages(alice: User, run_on_commit):
    job = start_counting(alice, 30)
    JobBatch.objects.update(dispatched_at=F("dispatched_at") - timedelta(days=1))
    first = job.batches.filter(number=1)
    with run_on_commit():
        publish_batches(job, list(first))
    with run_on_commit():
        republish()
    assert broker.queue_length("control") == 1


@pytest.mark.usefixtures("empty_queues")
def test_lost_batches_are_published_once_their_queue_is_empty(alice: User, run_on_commit):
    start_counting(alice, 30)
    JobBatch.objects.update(dispatched_at=F("dispatched_at") - timedelta(days=1))
    for _ in range(2):
        with run_on_commit():
            republish()
    assert broker.queue_length("control") == 3


@pytest.mark.django_db(transaction=True)
def test_concurrent_reconcilers_keep_the_parallelism(alice: User, settings):
    for n in range(10):
        job = start_counting(newcomer(f"user{n}"), 200)
        JobBatch.objects.filter(job=job).update(dispatched_at=None)
        run_concurrently(8, lambda _: dispatch_waiting_batches())
        assert in_flight(job) == settings.JOB_PARALLELISM


@pytest.mark.django_db(transaction=True)
def test_reconciler_leaves_a_job_that_another_one_has(alice: User):
    job = start_counting(alice, 200)
    JobBatch.objects.update(dispatched_at=None)
    with transaction.atomic():
        dispatch_waiting_batches()
        run_concurrently(1, lambda _: dispatch_waiting_batches())
    assert in_flight(job) == 4


# --- The time limit -------------------------------------------------------------------------


@pytest.mark.usefixtures("db")
def test_many_users_at_once_do_not_use_up_each_others_time(settings):
    """Each job takes nine seconds of work. Together they take nine minutes."""
    settings.JOB_TIMEOUT_SECONDS = 10
    jobs = [start_counting(newcomer(f"user{n}"), 100) for n in range(60)]
    for served in count():
        if not (batch := JobBatch.claim_next(TYPES, "")):
            break
        pretend_it_took(batch, 0.9)
        run_claimed(batch)
        if served % 20 == 0:
            let_time_pass(20 * 0.9)
            reconcile()
    assert served == 600
    statuses = {BackgroundJob.objects.get(pk=job.pk).status for job in jobs}
    assert statuses == {"completed"}


def pretend_it_took(batch: JobBatch, seconds: float) -> None:
    assert batch.claimed_at
    batch.claimed_at -= timedelta(seconds=seconds)


def let_time_pass(seconds: float) -> None:
    """Move the past of all jobs further back."""
    time = timedelta(seconds=seconds)
    BackgroundJob.objects.update(
        created_at=F("created_at") - time,
        started_at=F("started_at") - time,
        worked_until=F("worked_until") - time,
    )


def test_batch_in_the_wrong_order_still_counts(alice: User):
    """runner.run_batch runs one certain batch, as for a debugger."""
    job = start_counting(alice, 20)
    second = claim(job, "a debugger", number=2)
    run_claimed(second)
    run_batch(batch_ids(job)[0])
    job.refresh_from_db()
    assert job.status == "completed"
