"""The rows of background jobs. The rows are the truth about the work to be done; a message is only a
hint.

Every transition is one UPDATE that names the state it starts from. If it changes no row, another
process was first, and the caller stops quietly.

JobBatch stays beside BackgroundJob, because the transitions of one depend on the state of the other.
That makes this module longer than others.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models import Case, Count, Exists, F, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Greatest, Least, Now, TruncHour
from django.utils import timezone

from jobs.job_types import display_name
from scribes.db.turns import NEWCOMERS, first_turn
from scribes.messaging.leases import Lease, LeaseQuerySet
from scribes.messaging.sanitize import strip_unstorable
from scribes.models import User
from scribes.presentation import short_id

DONE_ITEMS = F("processed_items") + F("failed_items") + F("skipped_items")
NO_TIME = timedelta()


class BackgroundJobQuerySet(models.QuerySet["BackgroundJob"]):
    def for_user(self, user: User) -> BackgroundJobQuerySet:
        return self.filter(user=user)

    def active(self) -> BackgroundJobQuerySet:
        return self.filter(status__in=BackgroundJob.ACTIVE)

    def queued(self) -> BackgroundJobQuerySet:
        return self.filter(status=BackgroundJob.Status.QUEUED)

    def running(self) -> BackgroundJobQuerySet:
        return self.filter(status=BackgroundJob.Status.RUNNING)

    def terminal(self) -> BackgroundJobQuerySet:
        return self.filter(status__in=BackgroundJob.TERMINAL)

    def outcomes_by_hour(self) -> Iterable[dict[str, Any]]:
        """{"hour", "succeeded", "failed"}: how many jobs ended in each hour. Jobs with failed items
        count as failed."""
        failed = Q(status=BackgroundJob.Status.FAILED) | Q(failed_items__gt=0)
        hours = self.terminal().order_by().values(hour=TruncHour("completed_at"))
        return hours.annotate(
            succeeded=Count("pk", filter=~failed), failed=Count("pk", filter=failed)
        )

    def overdue(self) -> BackgroundJobQuerySet:
        """Active jobs that processes have worked on for more than JOB_TIMEOUT_SECONDS."""
        longest = timedelta(seconds=settings.JOB_TIMEOUT_SECONDS)
        return self.active().filter(work_time__gt=longest)

    def never_started(self) -> BackgroundJobQuerySet:
        """Active jobs without any work on them, of types that nobody has worked on for
        JOB_QUEUE_TIMEOUT_SECONDS.

        While others of the type make progress, a job only waits for its turn.
        """
        since = Now() - timedelta(seconds=settings.JOB_QUEUE_TIMEOUT_SECONDS)
        is_served = BackgroundJob.objects.filter(
            job_type=OuterRef("job_type"), worked_until__gt=since
        )
        is_started = JobBatch.objects.held().filter(job=OuterRef("pk"))
        waiting = self.active().filter(worked_until=None, created_at__lt=since)
        return waiting.filter(~Exists(is_served), ~Exists(is_started))

    def presumed_lost(self, seconds: int) -> BackgroundJobQuerySet:
        """Queued, although a message was sent more than `seconds` ago: the message may be lost."""
        return self.queued().filter(dispatched_at__lt=Now() - timedelta(seconds=seconds))


class BackgroundJob(models.Model):
    """One request for work on many items.

        queued --plan--> running --last batch--> completed    failed_items may be > 0
           |                |-----time limit---> failed        (also: it cannot be planned,
           |                |                                   or no worker served its type)
           '----------------'------cancel------> cancelled

    Terminal rows never change. A user has at most one active job of a type.
    """

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        COMPLETED = "completed"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE: ClassVar = (Status.QUEUED, Status.RUNNING)
    TERMINAL: ClassVar = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

    job_id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="jobs")
    job_type = models.CharField(max_length=64)
    status = models.CharField(max_length=16, choices=Status, default=Status.QUEUED)
    total_items = models.PositiveIntegerField(default=0)
    processed_items = models.PositiveIntegerField(default=0)
    failed_items = models.PositiveIntegerField(default=0)
    skipped_items = models.PositiveIntegerField(default=0)
    # Rounded to whole numbers. At most 99 until the job is complete: 99.6 would be rounded to 100.
    progress_percent = models.GeneratedField(
        expression=Case(
            When(status="completed", then=100),
            When(total_items=0, then=0),
            default=Least((DONE_ITEMS * 200 + F("total_items")) / (F("total_items") * 2), 99),
            output_field=models.IntegerField(),
        ),
        output_field=models.IntegerField(),
        db_persist=True,
    )
    parameters = models.JSONField(default=dict)
    result_data = models.JSONField(null=True)
    error_message = models.TextField(default="", blank=True)
    retry_of = models.ForeignKey("self", models.SET_NULL, null=True, related_name="retries")
    request_id = models.CharField(
        max_length=36,
        blank=True,
        default="",
        help_text="The request that started it; log lines have the same id.",
    )
    work_time = models.DurationField(
        default=NO_TIME, db_default=NO_TIME, help_text="Time in which processes worked on it."
    )
    worked_until = models.DateTimeField(
        null=True, help_text="When a process last reported work on it."
    )
    dispatched_at = models.DateTimeField(
        help_text="When the latest message to plan the job was sent."
    )
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)

    objects = BackgroundJobQuerySet.as_manager()

    class Meta:
        db_table = "background_jobs"
        ordering = ("-created_at", "-job_id")
        constraints = [
            models.UniqueConstraint(
                fields=["user", "job_type"],
                condition=Q(status__in=("queued", "running")),
                name="one_active_job_per_user_and_type",
            ),
            models.CheckConstraint(
                condition=Q(total_items__gte=DONE_ITEMS),
                name="job_items_add_up",
            ),
        ]
        indexes = [
            models.Index(fields=["user", "-created_at", "-job_id"], name="jobs_newest_of_user"),
        ]

    def __str__(self) -> str:
        return f"{display_name(self.job_type)} {short_id(self.pk)}"

    @property
    def done_items(self) -> int:
        return self.processed_items + self.failed_items + self.skipped_items

    @property
    def is_terminal(self) -> bool:
        return self.status in self.TERMINAL

    def _rows(self) -> BackgroundJobQuerySet:
        return BackgroundJob.objects.filter(pk=self.pk)

    def start(self, total_items: int) -> bool:
        """queued -> running."""
        return bool(
            self._rows()
            .queued()
            .update(status=self.Status.RUNNING, total_items=total_items, started_at=Now())
        )

    def record_work(self, since: datetime) -> None:
        """Add the time from `since` until now to `work_time`, while the job runs.

        Two processes may report the same time; it counts once. So `work_time` is never more than the
        time in which at least one process worked on the job. It can be less, if a process reports
        late.
        """
        self._rows().running().update(**_work(since))

    def record_progress(
        self, since: datetime, *, processed: int = 0, failed: int = 0, skipped: int = 0
    ) -> bool:
        """Count the items of one batch that a process worked on since this time; False if the job
        is no longer running.

        Locks the row until the transaction ends, so that of two last batches the second sees the
        first.
        """
        return bool(
            self._rows()
            .running()
            .update(
                processed_items=F("processed_items") + processed,
                failed_items=F("failed_items") + failed,
                skipped_items=F("skipped_items") + skipped,
                **_work(since),
            )
        )

    def add_to_result(self, numbers: Mapping[str, int]) -> None:
        """Add numbers to those in `result_data`. Call it with the row locked."""
        if not numbers:
            return
        result = self._rows().values_list("result_data", flat=True).get() or {}
        sums = {key: result.get(key, 0) + number for key, number in numbers.items()}
        self._rows().update(result_data=result | sums)

    def has_unfinished_batches(self) -> bool:
        return JobBatch.objects.filter(job=self.pk, status__in=JobBatch.ACTIVE).exists()

    def complete(self, summary: Mapping[str, Any]) -> bool:
        """running -> completed, with the summary in `result_data`. The caller holds the row's lock,
        and has seen that all batches have ended."""
        return bool(
            self._rows()
            .running()
            .update(
                status=self.Status.COMPLETED,
                result_data={**(self.result_data or {}), **summary},
                completed_at=Now(),
            )
        )

    def fail(self, reason: str) -> bool:
        """queued or running -> failed. What finished batches have saved is kept."""
        return self._end(self.Status.FAILED, error_message=strip_unstorable(reason))

    def cancel(self) -> bool:
        """queued or running -> cancelled. What finished batches have saved is kept; batches in
        progress save nothing."""
        return self._end(self.Status.CANCELLED)

    def _end(self, status: str, **fields: Any) -> bool:
        with transaction.atomic():
            active = self._rows().active()
            has_ended = bool(active.update(status=status, completed_at=Now(), **fields))
            if has_ended:
                # Its batches must not stay among those that wait for their turn.
                JobBatch.objects.dispatched().filter(job=self.pk).update(dispatched_at=None)
        return has_ended


def _work(since: datetime) -> dict[str, Any]:
    """The fields of a job that a process has worked on since this time. PostgreSQL's greatest()
    ignores NULL."""
    ongoing = Now() - Greatest(F("worked_until"), Value(since))
    return {
        "work_time": F("work_time") + Greatest(ongoing, Value(NO_TIME)),
        "worked_until": Greatest(F("worked_until"), Now()),
    }


class JobOutcomes(models.Model):
    """How many pruned jobs ended in an hour, and how. An hour may have several rows: add them up."""

    hour = models.DateTimeField(db_index=True)
    succeeded = models.PositiveIntegerField()
    failed = models.PositiveIntegerField()

    class Meta:
        db_table = "job_outcomes"
        verbose_name_plural = "job outcomes"

    def __str__(self) -> str:
        return f"{self.succeeded + self.failed} jobs from {self.hour:%Y-%m-%d %H:%M} UTC"


def needs_attention() -> Q:
    """Jobs that an operator should look at: failed or with failed items and not retried, or queued
    for too long."""
    retries = BackgroundJob.objects.filter(retry_of=OuterRef("pk"))
    failed = Q(status=BackgroundJob.Status.FAILED) | Q(
        status__in=BackgroundJob.TERMINAL, failed_items__gt=0
    )
    late = Now() - timedelta(seconds=settings.JOB_REPUBLISH_SECONDS)
    waits = Q(status=BackgroundJob.Status.QUEUED, created_at__lt=late)
    return (failed & ~Exists(retries)) | waits


class JobBatchQuerySet(LeaseQuerySet["JobBatch"]):
    def of_running_jobs(self, job_types: Iterable[str] = ()) -> JobBatchQuerySet:
        """Batches of running jobs, of these types if any are given.

        EXISTS and not a join: Django turns an UPDATE with a join into `id IN (SELECT …)`, and
        PostgreSQL does not evaluate a sub-select again after it waited for a row. Two processes could
        then claim the same batch."""
        running = BackgroundJob.objects.running().filter(pk=OuterRef("job"))
        return self.filter(Exists(running.filter(job_type__in=job_types) if job_types else running))

    def dispatched(self) -> JobBatchQuerySet:
        """Pending batches for which a message was sent."""
        return self.pending().filter(dispatched_at__isnull=False)

    def in_flight(self) -> JobBatchQuerySet:
        """Batches that have a message in the queue, or a process."""
        return self.filter(IN_FLIGHT)


IN_FLIGHT = Q(status="leased") | Q(status="pending", dispatched_at__isnull=False)


class JobBatch(Lease):
    """A part of a job's items. One process at a time works on it: see Lease.

    pending --claim--> leased --results and counters in one transaction--> done
       ^----------------'  it raised, the lease expired, or it goes on in another turn
                        '--attempts used up: smaller batches, or a failed item--> dead
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        LEASED = "leased"
        DONE = "done"
        DEAD = "dead"

    PENDING = Status.PENDING
    HELD = Status.LEASED
    ACTIVE: ClassVar = (Status.PENDING, Status.LEASED)

    job = models.ForeignKey(BackgroundJob, models.CASCADE, related_name="batches")
    number = models.PositiveIntegerField()
    item_ids = ArrayField(models.BigIntegerField())
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    turn = models.BigIntegerField(
        default=0, db_default=0, help_text="Of waiting batches, the lowest turn comes first."
    )
    claimed_by = models.CharField(max_length=64, default="", help_text="The id of the message.")
    claimed_at = models.DateTimeField(null=True)

    objects = JobBatchQuerySet.as_manager()

    class Meta:
        db_table = "job_batches"
        ordering = ("job", "number")
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="one_batch_per_number"),
        ]
        indexes = [
            models.Index(
                fields=["job", "number"],
                condition=Q(status__in=("pending", "leased")),
                name="batches_unfinished",
            ),
            models.Index(
                fields=["turn", "id"],
                condition=Q(status="pending", dispatched_at__isnull=False),
                name="batches_in_turn",
            ),
            models.Index(fields=["job"], condition=IN_FLIGHT, name="batches_in_flight"),
            models.Index(
                fields=["lease_expires_at"], condition=Q(status="leased"), name="batches_leased"
            ),
        ]

    def __str__(self) -> str:
        return f"batch {self.number} of {self.job_id}"

    @classmethod
    def claim(cls, batch_id: int, claimant: str) -> JobBatch | None:
        """pending -> leased, for JOB_LEASE_SECONDS.

        Also leased -> leased for the claimant that already holds the lease: the process that got the
        message died, and the message was delivered again.

        None if there is nothing to claim: another process has the batch, it is finished or deleted,
        or its job is no longer running.
        """
        pending = Q(status=cls.PENDING)
        own = Q(status=cls.HELD, claimed_by=claimant) & ~Q(claimed_by="")
        claimable = cls.objects.of_running_jobs().filter(pending | own, pk=batch_id)
        with transaction.atomic(savepoint=False):
            claimed = claimable.claim(
                settings.JOB_LEASE_SECONDS, claimed_by=claimant, claimed_at=Now()
            )
            return cls.objects.select_related("job").get(pk=batch_id) if claimed else None

    @classmethod
    def claim_next(cls, job_types: Iterable[str], claimant: str) -> JobBatch | None:
        """Claim the dispatched batch of these job types whose turn it is: see scribes.db.turns.

        If the claimant already holds a lease, it is that batch: see claim. None if there is nothing
        to claim.
        """
        with transaction.atomic():
            batch_id = cls._held_by_message(claimant) or cls._next_in_turn(job_types)
            return cls.claim(batch_id, claimant) if batch_id else None

    @classmethod
    def _held_by_message(cls, claimant: str) -> int | None:
        held = cls.objects.held().filter(claimed_by=claimant, lease_expires_at__gt=Now())
        return held.order_by("pk").values_list("pk", flat=True).first() if claimant else None

    @classmethod
    def _next_in_turn(cls, job_types: Iterable[str]) -> int | None:
        # A scalar sub-query and not EXISTS, which PostgreSQL may turn into a join over all jobs. This
        # one it evaluates for the first batches in the index.
        jobs = BackgroundJob.objects.filter(pk=OuterRef("job"), job_type__in=job_types)
        waiting = cls.objects.dispatched().annotate(job_status=Subquery(jobs.values("status")))
        running = waiting.filter(job_status=BackgroundJob.Status.RUNNING).order_by("turn", "pk")
        locked = running.select_for_update(skip_locked=True, no_key=True)
        return locked.values_list("pk", flat=True).first()

    def renew(self) -> bool:
        """Hold the lease for another JOB_LEASE_SECONDS; False if the lease or the job is gone."""
        held = JobBatch.objects.held_by(self).of_running_jobs()
        is_held = bool(held.renew(settings.JOB_LEASE_SECONDS))
        if is_held:
            self.job.record_work(self.work_since)
        return is_held

    @property
    def work_since(self) -> datetime:
        """When this process claimed the batch."""
        return self.claimed_at or timezone.now()

    def finish(self) -> bool:
        """leased -> done, if this process still holds the lease."""
        return self.end_lease(self.Status.DONE)

    def release(self, error: str) -> bool:
        """leased -> pending, if this process still holds the lease: the next attempt may succeed."""
        return self._give_back(dispatched_at=None, error=strip_unstorable(error))

    def put_back(self) -> bool:
        """leased -> pending for another turn, if this process still holds the lease. Call it in a
        transaction that publishes the batch again."""
        turn = self._first_turn(self.job)
        return self._give_back(dispatched_at=Now(), turn=turn, attempts=0)

    def _give_back(self, **fields: Any) -> bool:
        """leased -> pending, and count the work. A process that lost its lease counts nothing: it may
        have been suspended since it claimed the batch."""
        is_held = self.end_lease(self.PENDING, **fields)
        if is_held:
            self.job.record_work(self.work_since)
        return is_held

    def mark_dead(self) -> bool:
        """leased -> dead, if this process still holds the lease."""
        return self.end_lease(self.Status.DEAD)

    @classmethod
    def release_expired(cls) -> int:
        """leased -> pending for all batches whose lease has expired; how many there were."""
        return (
            cls.objects.expired()
            .of_running_jobs()
            .update(
                status=cls.PENDING,
                lease_expires_at=None,
                dispatched_at=None,
                error="The process that worked on it died or hung.",
            )
        )

    @classmethod
    def dispatch(cls, job: BackgroundJob, count: int) -> list[JobBatch]:
        """Put the next `count` batches in line, and return them for publishing.

        Two processes get different batches, so that together they never exceed the job's
        parallelism.
        """
        waiting = cls.objects.pending().filter(job=job, dispatched_at=None)
        with transaction.atomic(savepoint=False):
            locked = waiting.select_for_update(skip_locked=True, no_key=True).order_by("number")
            batches = list(locked.only("job", "number")[:count])
            cls._put_in_line(job, batches)
        return batches

    @classmethod
    def _put_in_line(cls, job: BackgroundJob, batches: Sequence[JobBatch]) -> None:
        """A batch gets its turn now and not when it is written: by now, others may be far ahead of the
        turn that it would have had, or far behind."""
        turn = cls._first_turn(job) if batches else 0
        for n, batch in enumerate(batches):
            batch.dispatched_at, batch.turn = Now(), turn + n * NEWCOMERS
        cls.objects.bulk_update(batches, ["dispatched_at", "turn"])

    @classmethod
    def append(cls, job: BackgroundJob, chunks: Sequence[Sequence[int]]) -> None:
        """Create one pending batch for each chunk of item ids. Call it with the job's row locked."""
        first = cls.count_of(job) + 1
        cls.objects.bulk_create(
            cls(job=job, number=number, item_ids=list(chunk))
            for number, chunk in enumerate(chunks, first)
        )

    @classmethod
    def _first_turn(cls, job: BackgroundJob) -> int:
        """The turn of the next batch of the job's user: users take turns by batch.

        The user has at most JOB_PARALLELISM batches of each job type in flight."""
        last = cls.objects.in_flight().filter(job=OuterRef("pk")).order_by("-turn").values("turn")
        # A scalar sub-query and not a join, which PostgreSQL may start with the batches of all jobs.
        own = BackgroundJob.objects.active().filter(user=job.user_id)
        return first_turn(
            in_service=cls.objects.held().filter(lease_expires_at__gt=Now()),
            waiting=cls.objects.dispatched(),
            own=own.annotate(turn=Subquery(last[:1])),
        )

    @classmethod
    def count_of(cls, job: BackgroundJob) -> int:
        """How many batches the job has. They are numbered from 1 without gaps."""
        return cls.objects.filter(job=job).aggregate(last=models.Max("number"))["last"] or 0


class ItemFailure(models.Model):
    """Why one item of a job failed."""

    job = models.ForeignKey(BackgroundJob, models.CASCADE, related_name="failures")
    item_id = models.BigIntegerField()
    error_class = models.CharField(max_length=200)
    message = models.TextField()

    class Meta:
        db_table = "job_item_failures"
        ordering = ("job", "item_id")
        constraints = [
            models.UniqueConstraint(fields=["job", "item_id"], name="one_failure_per_item"),
        ]

    def __str__(self) -> str:
        return f"item {self.item_id}: {self.error_class}"
