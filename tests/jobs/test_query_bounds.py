"""What a batch costs does not depend on how many other jobs run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs.models import BackgroundJob, JobBatch
from jobs.runner import run_next_batch
from scribes.models import User
from tests.helpers.counting import Counting
from tests.helpers.jobs import batch_ids, deliver, start_counting
from tests.helpers.plans import most_rows_read

OTHERS = 1000
PROCESSES = 8
IN_LINE = 4
# Processes hold some batches, a user has some in line, and each query reads the end of an index.
FEW_ROWS = 50
# Four of these are savepoints, which are transactions outside of a test. One writes the results, and
# one is for Flower, if the batch is not that of the message.
QUERIES_OF_A_BATCH = 18


@pytest.fixture(autouse=True)
def small_batches(settings) -> None:
    settings.JOB_BATCH_SIZE = 1


def make_running_jobs() -> None:
    """Running jobs of a thousand users. Each has batches in line and others that wait."""
    now = timezone.now()
    names = [f"user{n}@example.com" for n in range(OTHERS)]
    users = User.objects.bulk_create(User(email=name) for name in names)
    jobs = BackgroundJob.objects.bulk_create(
        BackgroundJob(
            user=user,
            job_type=Counting.name,
            status="running",
            total_items=2 * IN_LINE,
            created_at=now,
            dispatched_at=now,
        )
        for user in users
    )
    JobBatch.objects.bulk_create(
        JobBatch(
            job=job,
            number=number,
            item_ids=[number],
            turn=16 * number,
            dispatched_at=now if number <= IN_LINE else None,
        )
        for job in jobs
        for number in range(1, 2 * IN_LINE + 1)
    )
    hold_some_batches()


def hold_some_batches() -> None:
    """As many as there are processes."""
    held = list(JobBatch.objects.dispatched().order_by("turn", "pk")[:PROCESSES])
    later = timezone.now() + timedelta(minutes=1)
    ids = [batch.pk for batch in held]
    JobBatch.objects.filter(pk__in=ids).update(status="leased", lease_expires_at=later)


def analyse() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def test_batch_reads_few_rows_beside_1000_running_jobs(alice: User):
    make_running_jobs()
    analyse()
    first, *_ = batch_ids(start_counting(alice, 10))
    assert most_rows_read(lambda: deliver(first)) <= FEW_ROWS


def test_batch_reads_no_row_twice_in_a_sudden_rush(alice: User):
    """PostgreSQL does not know yet that there are more jobs than one, and may take the wrong index."""
    first, *_ = batch_ids(start_counting(alice, 10))
    analyse()
    make_running_jobs()
    entries = 2 * JobBatch.objects.count()
    assert most_rows_read(lambda: deliver(first)) <= entries


def number_of_queries(batch_id: int) -> int:
    with CaptureQueriesContext(connection) as queries:
        run_next_batch(batch_id, Counting.queue, "a message")
    return len(queries)


def test_batch_takes_as_many_queries_beside_others(alice: User):
    first, second, *_ = batch_ids(start_counting(alice, 10))
    assert number_of_queries(first) <= QUERIES_OF_A_BATCH
    make_running_jobs()
    assert number_of_queries(second) <= QUERIES_OF_A_BATCH


def test_batches_are_dispatched_with_as_many_queries_as_one(alice: User, settings):
    numbers = []
    for parallelism in (1, 10):
        settings.JOB_PARALLELISM = parallelism
        with CaptureQueriesContext(connection) as queries:
            job = start_counting(alice, 20)
        numbers.append(len(queries))
        job.cancel()
    assert numbers[0] == numbers[1]
