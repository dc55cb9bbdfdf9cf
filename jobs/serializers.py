from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from jobs.estimate import eta_seconds
from jobs.models import BackgroundJob, ItemFailure
from jobs.runner import JOB_TYPES


class JobSerializer(serializers.ModelSerializer[BackgroundJob]):
    eta_seconds = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text="Until a running job is done, at the speed it had so far; null while unknown.",
    )
    error_message = serializers.CharField(
        read_only=True, allow_null=True, help_text="null unless the job failed."
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
        """Straight from the row, which the JSON encoder understands: people ask for this all the
        time, and going through a field object for each value took most of the request."""
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
    sentence = serializers.SerializerMethodField(help_text="For people to read.")

    class Meta:
        model = BackgroundJob
        fields = ("job_id", "status", "progress_percent", "sentence")
        read_only_fields = fields

    def get_sentence(self, job: BackgroundJob) -> str:
        return sentence(job)


def sentence(job: BackgroundJob) -> str:
    """How the job stands, in one sentence."""
    items = JOB_TYPES[job.job_type].items if job.job_type in JOB_TYPES else "items"
    count = f"{job.done_items} of {job.total_items} {items} done, {job.failed_items} failed"
    return {
        BackgroundJob.Status.QUEUED: "The job is waiting for a worker.",
        BackgroundJob.Status.RUNNING: f"The job is running: {count}.",
        BackgroundJob.Status.COMPLETED: f"The job is complete: {count}.",
        BackgroundJob.Status.FAILED: f"The job failed: {job.error_message} ({count}).",
        BackgroundJob.Status.CANCELLED: f"The job was cancelled: {count}.",
    }[BackgroundJob.Status(job.status)]


class FailureSerializer(serializers.ModelSerializer[ItemFailure]):
    class Meta:
        model = ItemFailure
        fields = ("item_id", "error_class", "message", "hint")
        read_only_fields = fields


class FailureGroupSerializer(serializers.Serializer[Any]):
    error_class = serializers.CharField()
    hint = serializers.CharField()
    count = serializers.IntegerField()
    item_ids = serializers.ListField(child=serializers.IntegerField(), help_text="The first 100.")


class FailureQuery(serializers.Serializer[Any]):
    group_by = serializers.ChoiceField(
        choices=["cause"], required=False, help_text="How many items each cause made fail."
    )


class JobQuery(serializers.Serializer[Any]):
    """The filters of the list."""

    status = serializers.ChoiceField(
        choices=BackgroundJob.Status.choices, required=False, help_text="How they stand."
    )
    job_type = serializers.CharField(
        max_length=64, required=False, help_text="Such as embedding_regeneration."
    )

    def validate_job_type(self, name: str) -> str:
        if name not in JOB_TYPES:
            raise serializers.ValidationError(f"Known job types: {', '.join(JOB_TYPES)}.")
        return name
