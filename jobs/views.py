from __future__ import annotations

from typing import Any

from django.db.models import Count, QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from jobs.models import BackgroundJob, ItemFailure
from jobs.runner import retry_failed
from jobs.serializers import (
    FailureGroupSerializer,
    FailureQuery,
    FailureSerializer,
    JobQuery,
    JobSerializer,
    JobStatusSerializer,
)
from scribes.api import Conflict, NamedPage
from scribes.browsable import Place


class JobPage(NamedPage):
    name = "jobs"


class OwnJobs(generics.GenericAPIView[BackgroundJob]):
    """Somebody else's job is as missing as one that never was: 404."""

    queryset = BackgroundJob.objects.all()
    serializer_class: type[BaseSerializer[Any]] = JobSerializer
    lookup_field = "job_id"

    def get_queryset(self) -> QuerySet[BackgroundJob]:
        return BackgroundJob.objects.for_user(self.request.user)  # type: ignore[arg-type]

    def places(self, data: Any) -> list[Place]:
        return [_place(data)]


def _place(job: dict[str, Any]) -> Place:
    """Where one can go from a job, in the browsable API."""

    def url(name: str) -> str:
        return reverse(name, args=[job["job_id"]])

    links = {"Job": "job-detail", "Status": "job-status", "Failures": "job-failures"}
    buttons = {}
    if job["status"] in BackgroundJob.ACTIVE:
        buttons["Cancel"] = url("job-cancel")
    elif job.get("failed_items"):
        buttons["Retry what failed"] = url("job-retry")
    name = f"{job.get('job_type', 'Job')}: {job['status']}, {job['progress_percent']} %"
    return Place(name, {label: url(name) for label, name in links.items()}, buttons)


@extend_schema(parameters=[JobQuery])
class JobList(OwnJobs, generics.ListAPIView[BackgroundJob]):
    """Your jobs, newest first."""

    pagination_class = JobPage
    query_class = JobQuery

    def places(self, data: Any) -> list[Place]:
        return [_place(job) for job in data["jobs"]]

    def filter_queryset(  # type: ignore[override]
        self, queryset: QuerySet[BackgroundJob]
    ) -> QuerySet[BackgroundJob]:
        # The parameters of a retry name every item that had failed.
        jobs = queryset.defer("parameters", "deadline_at", "dispatched_at", "request_id")
        if not self.request.query_params:
            return jobs
        query = JobQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        return jobs.filter(**query.validated_data)


class JobDetail(OwnJobs, generics.RetrieveAPIView[BackgroundJob]):
    """One job with its progress, its counts and, once it ended, its result."""


class JobCancel(OwnJobs):
    """Stop the job. What is finished is kept; a batch in work saves nothing any more."""

    @extend_schema(request=None, responses={202: JobSerializer})
    def post(self, request: Request, job_id: str) -> Response:
        job = self.get_object()
        if not job.cancel():
            raise Conflict("The job has ended already.")
        job.refresh_from_db()
        return Response(self.get_serializer(job).data, status=202)


class JobRetry(OwnJobs):
    """A new job with only the items that failed in this one."""

    @extend_schema(request=None, responses={202: JobSerializer})
    def post(self, request: Request, job_id: str) -> Response:
        job = self.get_object()
        if not job.is_terminal:
            raise Conflict("The job has not ended yet.")
        retried = retry_failed(job)
        if retried is None:
            raise Conflict("Nothing has failed in this job.")
        retry, is_new = retried
        if not is_new:
            raise Conflict(f"Another job is under way: {retry.job_id}.")
        return Response(
            self.get_serializer(retry).data,
            status=202,
            headers={"Location": reverse("job-detail", args=[retry.job_id])},
        )


class FailurePage(NamedPage):
    name = "failures"


@extend_schema(parameters=[FailureQuery])
class JobFailures(OwnJobs):
    """The items that failed and why; with ?group_by=cause, how many of each cause."""

    serializer_class = FailureSerializer
    pagination_class = FailurePage
    query_class = FailureQuery

    def places(self, data: Any) -> list[Place]:
        return [_place(JobSerializer(self.get_object()).data)]

    def get(self, request: Request, job_id: str) -> Response:
        query = FailureQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        failures = self.get_object().failures.all()
        if query.validated_data:
            return Response({"causes": FailureGroupSerializer(causes(failures), many=True).data})
        page = self.paginate_queryset(failures)  # type: ignore[arg-type]
        return self.get_paginated_response(self.get_serializer(page, many=True).data)


def causes(failures: QuerySet[ItemFailure]) -> list[dict[str, Any]]:
    """Failures by error class, the most frequent first."""
    counts = failures.order_by().values("error_class").annotate(count=Count("pk"))
    return [
        {
            "error_class": error_class,
            "hint": ItemFailure(error_class=error_class).hint,
            "count": count,
            "item_ids": failures.filter(error_class=error_class).values_list("item_id", flat=True)[
                :100
            ],
        }
        for error_class, count in counts.order_by("-count").values_list("error_class", "count")
    ]


class JobStatus(OwnJobs):
    """One job in brief."""

    serializer_class = JobStatusSerializer

    def get(self, request: Request, job_id: str) -> Response:
        return Response(self.get_serializer(self.get_object()).data)
