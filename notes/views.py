from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from jobs.models import BackgroundJob
from jobs.runner import enqueue
from notes import indexing, search
from notes.coverage import coverage
from notes.indexing import EmbeddingRegeneration
from notes.metrics import SEARCH_SECONDS
from notes.models import Note
from notes.serializers import (
    BEGINNING_CHARACTERS,
    FILTERS,
    Accepted,
    Coverage,
    Estimate,
    ListedNoteSerializer,
    NoteListQuery,
    NoteSerializer,
    Page,
    RegenerateQuery,
    SearchQuery,
    SearchResults,
)
from scribes.api import NamedPage
from scribes.browsable import Place
from scribes.models import User


class NotePage(NamedPage):
    name = "notes"


class OwnNotes(generics.GenericAPIView[Note]):
    """Somebody else's note is as missing as one that never was: 404."""

    queryset = Note.objects.all()
    serializer_class = NoteSerializer

    @property
    def user(self) -> User:
        return self.request.user  # type: ignore[return-value]

    def get_queryset(self) -> QuerySet[Note]:
        return Note.objects.for_user(self.user)

    def places(self, data: Any) -> list[Place]:
        return [_place(data)]


def _place(note: dict[str, Any]) -> Place:
    """Where one can go from a note, in the browsable API."""
    links = {
        "Note": reverse("note-detail", args=[note["id"]]),
        "Similar notes": reverse("semantic-similar", args=[note["id"]]),
        "Reminders": f"{reverse('reminder-list')}?note_id={note['id']}",
    }
    return Place(note["title"], links, {})


def _found_places(data: Any) -> list[Place]:
    return [_place(result["note"]) for result in data["results"]]


class NoteList(OwnNotes, generics.ListCreateAPIView[Note]):
    """Your notes, the one edited last first."""

    pagination_class = NotePage
    query_class = NoteListQuery

    def places(self, data: Any) -> list[Place]:
        # What it answers to a POST is the new note.
        return [_place(note) for note in data.get("notes", [data])]

    def get_serializer_class(self) -> type[NoteSerializer]:
        return NoteSerializer if self.request.method == "POST" else ListedNoteSerializer

    def get_queryset(self) -> QuerySet[Note]:
        query = NoteListQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        ordering = query.validated_data.pop("ordering")
        notes = Note.objects.for_user(self.user).matching(**query.validated_data)
        beginning = Left("content", BEGINNING_CHARACTERS)
        notes = notes.defer("content").annotate(beginning=beginning)
        # Notes of the same moment or title keep their order from page to page.
        return notes.order_by(ordering, "-id" if ordering.startswith("-") else "id")

    @extend_schema(parameters=[NoteListQuery])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def perform_create(self, serializer: BaseSerializer[Note]) -> None:
        serializer.save(user=self.request.user)


class NoteDetail(OwnNotes, generics.RetrieveUpdateDestroyAPIView[Note]):
    http_method_names = ["get", "patch", "delete", "head", "options"]

    def get_queryset(self) -> QuerySet[Note]:
        """A change waits for another one of the same note, or it would undo it."""
        notes = super().get_queryset()
        return notes.select_for_update(no_key=True) if self.request.method == "PATCH" else notes

    @transaction.atomic
    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().patch(request, *args, **kwargs)


class RegenerateEmbeddings(generics.GenericAPIView[Note]):
    """Embed all your notes anew, in the background; or only say how much work that is.

    While such a job is active, this answers with it, whatever the body says.
    """

    serializer_class = RegenerateQuery

    def places(self, data: Any) -> list[Place]:
        if "task_id" not in data:
            return []
        job = {"Job": reverse("job-detail", args=[data["task_id"]])}
        return [Place(data["message"], job, {})]

    @extend_schema(request=RegenerateQuery, responses={200: Estimate, 202: Accepted})
    def post(self, request: Request) -> Response:
        query = self.get_serializer(data=request.data)
        query.is_valid(raise_exception=True)
        dry_run = query.validated_data.pop("dry_run")
        if dry_run:
            return Response(indexing.estimate(request.user, query.validated_data))  # type: ignore[arg-type]
        job, is_new = enqueue(request.user, EmbeddingRegeneration.name, query.validated_data)  # type: ignore[arg-type]
        return accepted(job, is_new)


def accepted(job: BackgroundJob, is_new: bool) -> Response:
    message = "has been queued" if is_new else "is already under way"
    return Response(
        {
            "message": f"Embedding regeneration {message}; follow it at /jobs/{job.job_id}.",
            "status": job.status,
            "task_id": job.job_id,
        },
        status=202,
        headers={"Location": reverse("job-detail", args=[job.job_id])},
    )


class Search(generics.GenericAPIView[Note]):
    """Your notes that answer the query best, each with the passage that does."""

    serializer_class = SearchQuery

    def places(self, data: Any) -> list[Place]:
        return _found_places(data)

    @extend_schema(request=SearchQuery, responses=SearchResults)
    def post(self, request: Request) -> Response:
        query = self.get_serializer(data=request.data)
        query.is_valid(raise_exception=True)
        options = query.validated_data
        filters = {key: options.pop(key) for key in FILTERS if key in options}
        user: User = request.user  # type: ignore[assignment]
        among = Note.objects.for_user(user).matching(**filters) if filters else None
        with SEARCH_SECONDS.time():
            found = search.search(user, options.pop("query"), among=among, **options)
        return Response(SearchResults(found).data)


class Similar(OwnNotes):
    """Your notes nearest in meaning to this one."""

    pagination_class = None
    query_class = Page

    def places(self, data: Any) -> list[Place]:
        return _found_places(data)

    @extend_schema(parameters=[Page], responses=SearchResults)
    def get(self, request: Request, pk: int) -> Response:
        query = Page(data=request.query_params)
        query.is_valid(raise_exception=True)
        found = search.similar(self.get_object(), **query.validated_data)
        return Response(SearchResults(found).data)


class Status(APIView):
    """How many of your notes can be found by meaning, and the last job that saw to it."""

    @extend_schema(responses=Coverage)
    def get(self, request: Request) -> Response:
        user: User = request.user  # type: ignore[assignment]
        jobs = BackgroundJob.objects.for_user(user).filter(job_type__in=indexing.JOB_TYPES)
        return Response(Coverage(coverage(user) | {"last_job": jobs.first()}).data)
