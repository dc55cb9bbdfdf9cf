from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from jobs.models import BackgroundJob
from jobs.serializers import JobQuery, JobSerializer, JobStatusSerializer
from scribes.api import NamedPage


class JobPage(NamedPage):
    name = "jobs"


class OwnJobs(generics.GenericAPIView[BackgroundJob]):
    """Somebody else's job is as missing as one that never was: 404."""

    queryset = BackgroundJob.objects.all()
    serializer_class: type[BaseSerializer[BackgroundJob]] = JobSerializer
    lookup_field = "job_id"

    def get_queryset(self) -> QuerySet[BackgroundJob]:
        return BackgroundJob.objects.for_user(self.request.user)  # type: ignore[arg-type]


@extend_schema(parameters=[JobQuery])
class JobList(OwnJobs, generics.ListAPIView[BackgroundJob]):
    """Your jobs, newest first."""

    pagination_class = JobPage

    def filter_queryset(  # type: ignore[override]
        self, queryset: QuerySet[BackgroundJob]
    ) -> QuerySet[BackgroundJob]:
        query = JobQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        return queryset.filter(**query.validated_data)


class JobDetail(OwnJobs, generics.RetrieveAPIView[BackgroundJob]):
    """One job with its progress, its counts and, once it ended, its result."""


class JobStatus(OwnJobs):
    """One job in brief."""

    serializer_class = JobStatusSerializer

    def get(self, request: Request, job_id: str) -> Response:
        return Response(self.get_serializer(self.get_object()).data)
