"""The rows of background jobs. They are the truth about what is to be done; a message is a hint.

Every transition is one UPDATE that names the state it starts from. Where it changes no row,
somebody else was first, and the caller stops quietly.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models, transaction
from django.db.models import Case, F, Q, When
from django.db.models.functions import Least, Now

from scribes.models import User

DONE_ITEMS = F("processed_items") + F("failed_items") + F("skipped_items")


class BackgroundJobQuerySet(models.QuerySet["BackgroundJob"]):
    def for_user(self, user: User) -> BackgroundJobQuerySet:
        return self.filter(user=user)

    def active(self) -> BackgroundJobQuerySet:
        return self.filter(status__in=BackgroundJob.ACTIVE)


class BackgroundJob(models.Model):
    """One request for work on many items.

        queued --plan--> running --last batch--> completed    failed_items may be > 0
           |                |---------------------> failed
           '----------------'---------------------> cancelled

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
    cancel_requested_at = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField()
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

    def start(self, total_items: int) -> bool:
        """queued -> running."""
        queued = BackgroundJob.objects.filter(pk=self.pk, status=self.Status.QUEUED)
        return bool(
            queued.update(status=self.Status.RUNNING, total_items=total_items, started_at=Now())
        )

    def add(self, *, processed: int, failed: int, skipped: int) -> bool:
        """Count one finished batch. False when the job is no longer running.

        Locks the row until the transaction ends, so that of two last batches the second one
        sees the first one's.
        """
        running = BackgroundJob.objects.filter(pk=self.pk, status=self.Status.RUNNING)
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
        running = BackgroundJob.objects.filter(pk=self.pk, status=self.Status.RUNNING)
        return bool(
            running.update(
                status=self.Status.COMPLETED, result_data=result_data, completed_at=Now()
            )
        )

    def fail(self, reason: str) -> bool:
        """queued or running -> failed. What its batches have saved is kept."""
        active = BackgroundJob.objects.active().filter(pk=self.pk)
        return bool(
            active.update(status=self.Status.FAILED, error_message=reason, completed_at=Now())
        )


class JobBatch(models.Model):
    """A part of a job's items, worked on by one process at a time.

        pending --claim--> leased --results and counters in one transaction--> done
           ^----------------'  an error, or the lease expired
                            '---------------- attempts used up --------------> dead

    `claim_seq` is the fencing token: it grows with every claim, and whoever finishes must name
    the one it claimed with. A process that lost its lease therefore writes nothing.
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
    dispatched_at = models.DateTimeField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    next_attempt_at = models.DateTimeField(null=True)
    error = models.TextField(default="", blank=True)

    class Meta:
        db_table = "job_batches"
        ordering = ("job", "number")
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="one_batch_per_number"),
        ]

    def __str__(self) -> str:
        return f"batch {self.number} of {self.job_id}"

    @classmethod
    def claim(cls, batch_id: int) -> JobBatch | None:
        """pending -> leased, for JOB_LEASE_SECONDS by the database's clock.

        None when there is nothing to claim: the batch is in other hands, finished or deleted,
        or its job is no longer running.
        """
        lease = timedelta(seconds=settings.JOB_LEASE_SECONDS)
        with transaction.atomic():
            claimed = cls.objects.filter(
                pk=batch_id, status=cls.Status.PENDING, job__status=BackgroundJob.Status.RUNNING
            ).update(
                status=cls.Status.LEASED,
                attempts=F("attempts") + 1,
                claim_seq=F("claim_seq") + 1,
                lease_expires_at=Now() + lease,
            )
            return cls.objects.select_related("job").get(pk=batch_id) if claimed else None

    def finish(self) -> bool:
        """leased -> done, if the lease is still ours."""
        ours = JobBatch.objects.filter(
            pk=self.pk, status=self.Status.LEASED, claim_seq=self.claim_seq
        )
        return bool(ours.update(status=self.Status.DONE, lease_expires_at=None))

    @classmethod
    def dispatch(cls, job: BackgroundJob, count: int) -> list[int]:
        """Mark the next `count` batches nobody was told about; their ids, for publishing.

        Two processes at once get different batches, so that a job's parallelism is kept.
        """
        waiting = cls.objects.select_for_update(skip_locked=True, no_key=True).filter(
            job=job, status=cls.Status.PENDING, dispatched_at=None
        )
        with transaction.atomic():
            ids = list(waiting.order_by("number").values_list("pk", flat=True)[:count])
            cls.objects.filter(pk__in=ids).update(dispatched_at=Now())
        return ids


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


def deadline(now: datetime) -> datetime:
    """When a job accepted `now` has to be done: JOB_TIMEOUT seconds later."""
    return now + timedelta(seconds=settings.JOB_TIMEOUT)
