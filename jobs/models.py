"""The rows of background jobs. They are the truth about what is to be done; a message is a hint.

Every transition is one UPDATE that names the state it starts from. Where it changes no row,
somebody else was first, and the caller stops quietly. Leases go by the database's clock.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models import Case, Count, Exists, F, OuterRef, Q, When
from django.db.models.functions import Least, Now, TruncHour

from scribes import logs
from scribes.models import User

DONE_ITEMS = F("processed_items") + F("failed_items") + F("skipped_items")


class BackgroundJobQuerySet(models.QuerySet["BackgroundJob"]):
    def for_user(self, user: User) -> BackgroundJobQuerySet:
        return self.filter(user=user)

    def active(self) -> BackgroundJobQuerySet:
        return self.filter(status__in=BackgroundJob.ACTIVE)

    def running(self) -> BackgroundJobQuerySet:
        return self.filter(status=BackgroundJob.Status.RUNNING)

    def terminal(self) -> BackgroundJobQuerySet:
        return self.filter(status__in=BackgroundJob.TERMINAL)

    def ended_by_hour(self) -> Iterable[dict[str, Any]]:
        """{"hour", "well", "badly"}: how many ended in it. With failed items is badly, too."""
        badly = Q(status=BackgroundJob.Status.FAILED) | Q(failed_items__gt=0)
        hours = self.terminal().order_by().values(hour=TruncHour("completed_at"))
        return hours.annotate(well=Count("pk", filter=~badly), badly=Count("pk", filter=badly))

    def overdue(self) -> BackgroundJobQuerySet:
        return self.active().filter(deadline_at__lt=Now())

    def never_begun(self) -> BackgroundJobQuerySet:
        """Active jobs that waited JOB_QUEUE_TIMEOUT without any work on them."""
        longest = timedelta(seconds=settings.JOB_QUEUE_TIMEOUT)
        return self.active().filter(deadline_at=None, created_at__lt=Now() - longest)

    def told_before(self, seconds: int) -> BackgroundJobQuerySet:
        """Queued jobs that a message was sent for so long ago that it may be lost."""
        queued = self.filter(status=BackgroundJob.Status.QUEUED)
        return queued.filter(dispatched_at__lt=Now() - timedelta(seconds=seconds))


class BackgroundJob(models.Model):
    """One request for work on many items.

        queued --plan--> running --last batch--> completed    failed_items may be > 0
           |                |------deadline----> failed        (also: it cannot be planned,
           |                |                                   or waits for too long)
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
    # Rounded in whole numbers; 99 until the job is complete, since a rounded 100 comes too early.
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
        max_length=36, blank=True, default=logs.request_id, help_text="For finding it in the logs."
    )
    deadline_at = models.DateTimeField(null=True, help_text="Unknown until a batch is in work.")
    dispatched_at = models.DateTimeField(help_text="When the latest message to plan it was sent.")
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
        return f"{self.job_type} {self.job_id}"

    @property
    def done_items(self) -> int:
        return self.processed_items + self.failed_items + self.skipped_items

    @property
    def is_terminal(self) -> bool:
        return self.status in self.TERMINAL

    def start(self, total_items: int) -> bool:
        """queued -> running."""
        queued = BackgroundJob.objects.filter(pk=self.pk, status=self.Status.QUEUED)
        return bool(
            queued.update(status=self.Status.RUNNING, total_items=total_items, started_at=Now())
        )

    def begin(self) -> None:
        """The first of its batches is in work: JOB_TIMEOUT counts from now on. Planned jobs may wait
        for hours while those of others are done."""
        if self.deadline_at is None:
            running = BackgroundJob.objects.running().filter(pk=self.pk, deadline_at=None)
            running.update(deadline_at=Now() + timedelta(seconds=settings.JOB_TIMEOUT))

    def add(self, *, processed: int = 0, failed: int = 0, skipped: int = 0) -> bool:
        """Count one finished batch. False when the job is no longer running.

        Locks the row until the transaction ends, so that of two last batches the second one
        sees the first one's.
        """
        running = BackgroundJob.objects.running().filter(pk=self.pk)
        return bool(
            running.update(
                processed_items=F("processed_items") + processed,
                failed_items=F("failed_items") + failed,
                skipped_items=F("skipped_items") + skipped,
            )
        )

    def has_unfinished_batches(self) -> bool:
        return JobBatch.objects.filter(job=self.pk, status__in=JobBatch.ACTIVE).exists()

    def complete(self, result_data: dict[str, Any]) -> bool:
        """running -> completed. The caller holds the row's lock and has seen all batches end."""
        running = BackgroundJob.objects.running().filter(pk=self.pk)
        return bool(
            running.update(
                status=self.Status.COMPLETED, result_data=result_data, completed_at=Now()
            )
        )

    def fail(self, reason: str) -> bool:
        """queued or running -> failed. What its batches have saved is kept."""
        active = BackgroundJob.objects.active().filter(pk=self.pk)
        return bool(
            active.update(
                status=self.Status.FAILED, error_message=storable(reason), completed_at=Now()
            )
        )

    def cancel(self) -> bool:
        """queued or running -> cancelled. What its batches have saved is kept.

        A batch that is being computed at this moment saves nothing any more.
        """
        active = BackgroundJob.objects.active().filter(pk=self.pk)
        return bool(active.update(status=self.Status.CANCELLED, completed_at=Now()))


class EndedJobs(models.Model):
    """How many of an hour's jobs were pruned: several rows of an hour add up."""

    hour = models.DateTimeField(db_index=True)
    well = models.PositiveIntegerField()
    badly = models.PositiveIntegerField()

    class Meta:
        db_table = "ended_jobs"
        verbose_name_plural = "ended jobs"

    def __str__(self) -> str:
        return f"{self.well + self.badly} in the hour from {self.hour:%Y-%m-%d %H:%M} UTC"


def needs_attention() -> Q:
    """Jobs that failed, wholly or in part, and that nobody has retried; and those that should have
    started by now."""
    retries = BackgroundJob.objects.filter(retry_of=OuterRef("pk"))
    failed = Q(status=BackgroundJob.Status.FAILED) | Q(
        status__in=BackgroundJob.TERMINAL, failed_items__gt=0
    )
    late = Now() - timedelta(seconds=settings.JOB_REPUBLISH_SECONDS)
    waits = Q(status=BackgroundJob.Status.QUEUED, created_at__lt=late)
    return (failed & ~Exists(retries)) | waits


class JobBatchQuerySet(models.QuerySet["JobBatch"]):
    def of_running_jobs(self, job_type: str | None = None) -> JobBatchQuerySet:
        """EXISTS and not a join: Django turns an UPDATE with a join into `id IN (SELECT …)`, and
        PostgreSQL does not look at a sub-select's conditions again after it waited for a row.
        Then two processes could both claim it."""
        running = BackgroundJob.objects.running().filter(pk=OuterRef("job"))
        return self.filter(Exists(running.filter(job_type=job_type) if job_type else running))

    def pending(self) -> JobBatchQuerySet:
        return self.filter(status=JobBatch.Status.PENDING)

    def leased(self) -> JobBatchQuerySet:
        return self.filter(status=JobBatch.Status.LEASED)

    def told_before(self, seconds: int) -> JobBatchQuerySet:
        """Pending batches that a message was sent for so long ago that it may be lost."""
        return self.pending().filter(dispatched_at__lt=Now() - timedelta(seconds=seconds))


class JobBatch(models.Model):
    """A part of a job's items, worked on by one process at a time.

        pending --claim--> leased --results and counters in one transaction--> done
           ^----------------'  it raised, or the lease expired
                            '--attempts used up: smaller batches, or a failed item--> dead

    `claim_seq` is the fencing token: it grows with every claim, and whoever renews or finishes
    must name the one it claimed with. A process that lost its lease therefore writes nothing.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        LEASED = "leased"
        DONE = "done"
        DEAD = "dead"

    ACTIVE: ClassVar = (Status.PENDING, Status.LEASED)

    job = models.ForeignKey(BackgroundJob, models.CASCADE, related_name="batches")
    number = models.PositiveIntegerField()
    item_ids = ArrayField(models.BigIntegerField())
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    claim_seq = models.PositiveIntegerField(default=0)
    claimed_by = models.CharField(max_length=64, default="", help_text="The id of the message.")
    dispatched_at = models.DateTimeField(
        null=True, help_text="When the latest message for it was sent."
    )
    lease_expires_at = models.DateTimeField(null=True)
    error = models.TextField(default="", blank=True, help_text="Of the latest attempt.")

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
        ]

    def __str__(self) -> str:
        return f"batch {self.number} of {self.job_id}"

    @classmethod
    def claim(cls, batch_id: int, claimant: str) -> JobBatch | None:
        """pending -> leased, for JOB_LEASE_SECONDS.

        Also leased -> leased for the claimant that holds the lease already: its message has
        been delivered again, since the process that first got it died.

        None when there is nothing to claim: the batch is in other hands, finished or deleted,
        or its job is no longer running.
        """
        free = Q(status=cls.Status.PENDING)
        own = Q(status=cls.Status.LEASED, claimed_by=claimant) & ~Q(claimed_by="")
        with transaction.atomic():
            claimed = (
                cls.objects.of_running_jobs()
                .filter(free | own, pk=batch_id)
                .update(
                    status=cls.Status.LEASED,
                    attempts=F("attempts") + 1,
                    claim_seq=F("claim_seq") + 1,
                    claimed_by=claimant,
                    lease_expires_at=lease_end(),
                )
            )
            return cls.objects.select_related("job").get(pk=batch_id) if claimed else None

    def _ours(self) -> JobBatchQuerySet:
        return JobBatch.objects.leased().filter(pk=self.pk, claim_seq=self.claim_seq)

    def renew(self) -> bool:
        """Hold the lease for another JOB_LEASE_SECONDS; False if it or the job is gone."""
        return bool(self._ours().of_running_jobs().update(lease_expires_at=lease_end()))

    def finish(self) -> bool:
        """leased -> done, if the lease is still ours."""
        return bool(self._ours().update(status=self.Status.DONE, lease_expires_at=None))

    def release(self, error: str) -> bool:
        """leased -> pending, if the lease is still ours: the next attempt may do better."""
        return bool(
            self._ours().update(
                status=self.Status.PENDING,
                lease_expires_at=None,
                dispatched_at=None,
                error=storable(error),
            )
        )

    def bury(self) -> bool:
        """leased -> dead, if the lease is still ours."""
        return bool(self._ours().update(status=self.Status.DEAD, lease_expires_at=None))

    @classmethod
    def release_expired(cls) -> int:
        """leased -> pending for all whose lease has run out; how many that were."""
        expired = cls.objects.leased().of_running_jobs().filter(lease_expires_at__lt=Now())
        return expired.update(
            status=cls.Status.PENDING,
            lease_expires_at=None,
            dispatched_at=None,
            error="The process that worked on it died or hung.",
        )

    @classmethod
    def dispatch(cls, job: BackgroundJob, count: int) -> list[JobBatch]:
        """Mark the next `count` batches nobody was told about, and return them for publishing.

        Two processes at once get different batches, so that a job's parallelism is kept.
        """
        waiting = cls.objects.pending().filter(job=job, dispatched_at=None)
        with transaction.atomic():
            locked = waiting.select_for_update(skip_locked=True, no_key=True).order_by("number")
            batches = list(locked.only("number")[:count])
            told = cls.objects.filter(pk__in=[batch.pk for batch in batches])
            told.update(dispatched_at=Now())
        return batches

    @classmethod
    def in_flight(cls, job: BackgroundJob) -> int:
        """How many batches of the job are in the queue or in work."""
        told = Q(status=cls.Status.PENDING, dispatched_at__isnull=False)
        counts = cls.objects.filter(told | Q(status=cls.Status.LEASED), job=job).aggregate(
            number=Count("pk")
        )
        return int(counts["number"])

    @classmethod
    def append(cls, job: BackgroundJob, chunks: Sequence[Sequence[int]]) -> None:
        """One more pending batch for each chunk of item ids. Call it with the job's row locked."""
        cls.objects.bulk_create(
            cls(job=job, number=number, item_ids=list(chunk))
            for number, chunk in enumerate(chunks, cls.count_of(job) + 1)
        )

    @classmethod
    def count_of(cls, job: BackgroundJob) -> int:
        """How many batches the job has so far: they are numbered from 1, without gaps."""
        return cls.objects.filter(job=job).aggregate(last=models.Max("number"))["last"] or 0


# What a person can do about a failed item, by its error_class.
HINTS = {
    "AttemptsUsedUp": (
        "The process died or hung each time it worked on this item. Look for the item in the "
        "worker's log; make it smaller, or give the worker more memory or TASK_TIME_LIMIT."
    ),
    "MemoryError": "The worker ran out of memory. Make the item smaller, or the memory larger.",
    "ModelUnavailable": "The embedding model could not be loaded: see EMBEDDING_MODEL. Then retry.",
    "OperationalError": "The database did not answer. Retry once it does.",
}
OTHER_HINT = "The worker's log has the traceback. Retry the job once the cause is mended."


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

    @property
    def hint(self) -> str:
        return HINTS.get(self.error_class, OTHER_HINT)


def storable(text: str) -> str:
    """PostgreSQL stores neither NUL nor halves of surrogate pairs, and an exception may quote them."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def lease_end() -> Any:
    return Now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)
