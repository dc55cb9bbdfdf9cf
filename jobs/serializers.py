from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from jobs.estimate import eta_seconds
from jobs.job_types import JOB_TYPES
from jobs.models import BackgroundJob, ItemFailure
from jobs.presentation import describe, failure_hint


class JobSerializer(serializers.ModelSerializer[BackgroundJob]):
    eta_seconds = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text="Seconds until a running job is done, at its speed so far; null while unknown.",
    )
    error_message = serializers.CharField(
        read_only=True, allow_null=True, help_text="Why the job failed; null if it did not."
    )

    class Meta:
        model = BackgroundJob
        fields = (
            "job_id",
            "job_type",
            "status",
            "progress_percent",
            "total_items",
            "processed_items",
            "failed_items",
            "skipped_items",
            "created_at",
            "started_at",
            "completed_at",
            "eta_seconds",
            "result_data",
            "error_message",
            "retry_of",
        )
        read_only_fields = fields

    def to_representation(self, job: BackgroundJob) -> dict[str, Any]:
        """The values of the row, as the JSON encoder understands them.

        Clients poll for jobs, and one field object per value takes most of the time of a page: the
        row "GET /jobs, 20 clients, p50" of docs/benchmarks.md exceeds its limit with them.
        """
        computed = {
            "eta_seconds": eta_seconds(job, timezone.now()),
            "error_message": job.error_message or None,
            "retry_of": job.retry_of_id,
        }
        return {
            name: computed[name] if name in computed else getattr(job, name)
            for name in self.Meta.fields
        }


class JobStatusSerializer(serializers.ModelSerializer[BackgroundJob]):
    description = serializers.SerializerMethodField(help_text="The job's state in one sentence.")

    class Meta:
        model = BackgroundJob
        fields = ("job_id", "status", "progress_percent", "description")
        read_only_fields = fields

    def get_description(self, job: BackgroundJob) -> str:
        return describe(job)


class AcceptedSerializer(serializers.Serializer[Any]):
    """The answer to a request that started a job."""

    message = serializers.CharField()
    status = serializers.CharField()
    task_id = serializers.UUIDField(help_text="The job's id, for GET /jobs/{job_id}.")


class FailureSerializer(serializers.ModelSerializer[ItemFailure]):
    hint = serializers.SerializerMethodField(help_text="What you can do about it.")

    class Meta:
        model = ItemFailure
        fields = ("item_id", "error_class", "message", "hint")
        read_only_fields = fields

    def get_hint(self, failure: ItemFailure) -> str:
        return failure_hint(failure)


class FailureCauseSerializer(serializers.Serializer[Any]):
    error_class = serializers.CharField()
    hint = serializers.CharField()
    count = serializers.IntegerField()
    item_ids = serializers.ListField(
        child=serializers.IntegerField(), help_text="The first 100 items."
    )


class FailureQuery(serializers.Serializer[Any]):
    group_by = serializers.ChoiceField(
        choices=["cause"], required=False, help_text="Count the failures of each cause."
    )


class JobQuery(serializers.Serializer[Any]):
    """The filters of the list."""

    status = serializers.ChoiceField(
        choices=BackgroundJob.Status.choices, required=False, help_text="Filter by status."
    )
    job_type = serializers.CharField(
        max_length=64, required=False, help_text="Filter by type, such as embedding_regeneration."
    )

    def validate_job_type(self, name: str) -> str:
        if name not in JOB_TYPES:
            raise serializers.ValidationError(
                f"There is no such job type. Job types: {', '.join(JOB_TYPES)}."
            )
        return name
