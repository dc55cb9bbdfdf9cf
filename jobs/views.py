from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from jobs.job_types import display_name
from jobs.models import BackgroundJob
from jobs.presentation import failure_causes
from jobs.runner import enqueue, retry_failed
from jobs.serializers import (
    AcceptedSerializer,
    FailureCauseSerializer,
    FailureQuery,
    FailureSerializer,
    JobQuery,
    JobSerializer,
    JobStatusSerializer,
)
from scribes.api.browsable import Resource
from scribes.api.errors import Conflict
from scribes.api.pagination import NamedPagination


class JobPagination(NamedPagination):
    name = "jobs"


class OwnJobs(generics.GenericAPIView[BackgroundJob]):
    """The user's own jobs. Another user's job is a 404, like one that does not exist."""

    queryset = BackgroundJob.objects.all()
    serializer_class: type[BaseSerializer[Any]] = JobSerializer
    lookup_field = "job_id"

    def get_queryset(self) -> QuerySet[BackgroundJob]:
        return BackgroundJob.objects.for_user(self.request.user)  # type: ignore[arg-type]

    def resources(self, data: Any) -> list[Resource]:
        return [_resource(data)]


def _resource(job: dict[str, Any]) -> Resource:
    """A job's links and buttons in the browsable API."""

    def url(name: str) -> str:
        return reverse(name, args=[job["job_id"]])

    links = {"Job": "job-detail", "Status": "job-status", "Failures": "job-failures"}
    buttons = {}
    if job["status"] in BackgroundJob.ACTIVE:
        buttons["Cancel"] = url("job-cancel")
    elif job.get("failed_items"):
        buttons["Retry failed items"] = url("job-retry")
    name = f"{job.get('job_type', 'Job')}: {job['status']}, {job['progress_percent']} %"
    return Resource(name, {label: url(name) for label, name in links.items()}, buttons)


@extend_schema(parameters=[JobQuery])
class JobList(OwnJobs, generics.ListAPIView[BackgroundJob]):
    """Your jobs, newest first."""

    pagination_class = JobPagination
    query_class = JobQuery

    def resources(self, data: Any) -> list[Resource]:
        return [_resource(job) for job in data["jobs"]]

    def filter_queryset(  # type: ignore[override]
        self, queryset: QuerySet[BackgroundJob]
    ) -> QuerySet[BackgroundJob]:
        query = JobQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        # The parameters of a retry list every item that had failed.
        jobs = queryset.defer(
            "parameters", "work_time", "worked_until", "dispatched_at", "request_id"
        )
        return jobs.filter(**query.validated_data)


class JobDetail(OwnJobs, generics.RetrieveAPIView[BackgroundJob]):
    """One job with its progress, its counts and, when it has ended, its result."""


class JobCancel(OwnJobs):
    """Cancel the job. What finished batches saved is kept; batches in progress save nothing."""

    @extend_schema(request=None, responses={202: JobSerializer})
    def post(self, request: Request, job_id: str) -> Response:
        job = self.get_object()
        if not job.cancel():
            raise Conflict("The job has already ended.")
        job.refresh_from_db()
        return Response(self.get_serializer(job).data, status=202)


class JobRetry(OwnJobs):
    """Start a new job with only the items that failed in this one."""

    @extend_schema(request=None, responses={202: JobSerializer})
    def post(self, request: Request, job_id: str) -> Response:
        job = self.get_object()
        if not job.is_terminal:
            raise Conflict("The job has not ended yet.")
        retried = retry_failed(job)
        if retried is None:
            raise Conflict("Nothing failed in this job.")
        retry, is_new = retried
        if not is_new:
            raise Conflict(f"Another job is active: {retry.job_id}.")
        return Response(
            self.get_serializer(retry).data,
            status=202,
            headers={"Location": reverse("job-detail", args=[retry.job_id])},
        )


class FailurePagination(NamedPagination):
    name = "failures"


@extend_schema(parameters=[FailureQuery])
class JobFailures(OwnJobs):
    """The items that failed and why; with ?group_by=cause, how many failed for each cause."""

    serializer_class = FailureSerializer
    pagination_class = FailurePagination
    query_class = FailureQuery

    def resources(self, data: Any) -> list[Resource]:
        return [_resource(JobSerializer(self.get_object()).data)]

    def get(self, request: Request, job_id: str) -> Response:
        query = FailureQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        job = self.get_object()
        if query.validated_data:
            causes = FailureCauseSerializer(failure_causes(job), many=True)
            return Response({"causes": causes.data})
        page = self.paginate_queryset(job.failures.all())  # type: ignore[arg-type]
        return self.get_paginated_response(self.get_serializer(page, many=True).data)


class JobStatus(OwnJobs):
    """One job in brief."""

    serializer_class = JobStatusSerializer

    def get(self, request: Request, job_id: str) -> Response:
        return Response(self.get_serializer(self.get_object()).data)


class StartJobView(generics.GenericAPIView[Any]):
    """Base of views whose POST starts a job: 202 with the job's id, also if it was active already.

    A subclass sets `job_type`, the name of a registered type, and `serializer_class`, whose validated
    data become the job's parameters. It may override `start`, for a dry run for example.
    """

    job_type: ClassVar[str]

    def resources(self, data: Any) -> list[Resource]:
        if "task_id" not in data:
            return []
        return [Resource(data["message"], {"Job": _job_url(data["task_id"])}, {})]

    @extend_schema(responses={202: AcceptedSerializer})
    def post(self, request: Request) -> Response:
        query = self.get_serializer(data=request.data)
        query.is_valid(raise_exception=True)
        return self.start(request, query.validated_data)

    def start(self, request: Request, parameters: dict[str, Any]) -> Response:
        job, is_new = enqueue(request.user, self.job_type, parameters)  # type: ignore[arg-type]
        state = "has been queued" if is_new else "is already active"
        name = display_name(self.job_type)
        answer = {
            "message": f"{name} {state}; follow it at {_job_url(job.job_id)}.",
            "status": job.status,
            "task_id": job.job_id,
        }
        return Response(
            AcceptedSerializer(answer).data,
            status=202,
            headers={"Location": _job_url(job.job_id)},
        )


def _job_url(job_id: Any) -> str:
    return reverse("job-detail", args=[job_id])
