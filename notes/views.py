from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from jobs.models import BackgroundJob
from jobs.serializers import AcceptedSerializer
from jobs.views import StartJobView
from notes.embeddings.coverage import coverage
from notes.embeddings.regeneration import EMBEDDING_JOB_TYPES, EmbeddingRegeneration, estimate
from notes.metrics import SEARCH_SECONDS
from notes.models import Note
from notes.scripture.formatting import describe_mention
from notes.scripture.references import MAX_REFERENCES, find_mentions
from notes.search import ranking
from notes.serializers import (
    FILTERS,
    PREVIEW_CHARACTERS,
    CoverageSerializer,
    EstimateSerializer,
    LanguageQuery,
    ListedNoteSerializer,
    NoteListQuery,
    NoteSerializer,
    ParsedScriptureSerializer,
    ParseScriptureQuery,
    RegenerateQuery,
    ResultPageQuery,
    ScriptureCoverageSerializer,
    SearchQuery,
    SearchResultsSerializer,
)
from notes.verse_coverage import verse_coverage
from scribes.api.browsable import Resource
from scribes.api.pagination import NamedPagination
from scribes.models import User


class NotePagination(NamedPagination):
    name = "notes"


class OwnNotes(generics.GenericAPIView[Note]):
    """Views of the user's own notes. Notes of other users are a 404, like missing ones."""

    queryset = Note.objects.all()
    serializer_class = NoteSerializer

    @property
    def user(self) -> User:
        return self.request.user  # type: ignore[return-value]

    def get_queryset(self) -> QuerySet[Note]:
        return Note.objects.for_user(self.user)

    def resources(self, data: Any) -> list[Resource]:
        return [_note_resource(data)]


def _note_resource(note: dict[str, Any]) -> Resource:
    """The links of a note in the browsable API."""
    links = {
        "Note": reverse("note-detail", args=[note["id"]]),
        "Similar notes": reverse("semantic-similar", args=[note["id"]]),
        "Reminders": f"{reverse('reminder-list')}?note_id={note['id']}",
    }
    return Resource(note["title"], links, {})


def _result_resources(data: Any) -> list[Resource]:
    return [_note_resource(result["note"]) for result in data["results"]]


class NoteList(OwnNotes, generics.ListCreateAPIView[Note]):
    """Your notes, most recently edited first."""

    pagination_class = NotePagination
    query_class = NoteListQuery

    def resources(self, data: Any) -> list[Resource]:
        # The answer to a POST is the new note.
        return [_note_resource(note) for note in data.get("notes", [data])]

    def get_serializer_class(self) -> type[NoteSerializer]:
        return NoteSerializer if self.request.method == "POST" else ListedNoteSerializer

    def get_queryset(self) -> QuerySet[Note]:
        query = NoteListQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        ordering = query.validated_data.pop("ordering")
        notes = Note.objects.matching(self.user, **query.validated_data)
        preview = Left("content", PREVIEW_CHARACTERS)
        notes = notes.defer("content").annotate(preview=preview)
        # The id makes the order total, so that pages neither overlap nor leave gaps.
        return notes.order_by(ordering, "-id" if ordering.startswith("-") else "id")

    @extend_schema(parameters=[NoteListQuery])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def perform_create(self, serializer: BaseSerializer[Note]) -> None:
        serializer.save(user=self.request.user)


class NoteDetail(OwnNotes, generics.RetrieveUpdateDestroyAPIView[Note]):
    """One note, with all of its content."""

    http_method_names = ["get", "patch", "delete", "head", "options"]

    def get_queryset(self) -> QuerySet[Note]:
        """Lock a note that is changed: a concurrent change of it would undo this one. Do not read the
        content of one that is deleted."""
        notes = super().get_queryset()
        if self.request.method == "DELETE":
            return notes.defer("content")
        return notes.select_for_update(no_key=True) if self.request.method == "PATCH" else notes

    @transaction.atomic
    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().patch(request, *args, **kwargs)


@extend_schema_view(
    post=extend_schema(responses={200: EstimateSerializer, 202: AcceptedSerializer})
)
class RegenerateEmbeddings(StartJobView):
    """Embed all your notes again in the background, or estimate how much work that is.

    While such a job is active, the answer names that job, whatever the request asks for.
    """

    job_type = EmbeddingRegeneration.name
    serializer_class = RegenerateQuery

    def start(self, request: Request, parameters: dict[str, Any]) -> Response:
        if parameters.pop("dry_run"):
            return Response(estimate(request.user, parameters))  # type: ignore[arg-type]
        return super().start(request, parameters)


class SearchNotes(generics.GenericAPIView[Note]):
    """Your notes that match the query best, each with its best passage."""

    serializer_class = SearchQuery

    def resources(self, data: Any) -> list[Resource]:
        return _result_resources(data)

    @extend_schema(request=SearchQuery, responses=SearchResultsSerializer)
    def post(self, request: Request) -> Response:
        query = self.get_serializer(data=request.data)
        query.is_valid(raise_exception=True)
        options = query.validated_data
        filters = {key: options.pop(key) for key in FILTERS if key in options}
        user: User = request.user  # type: ignore[assignment]
        candidates = Note.objects.matching(user, **filters) if filters else None
        with SEARCH_SECONDS.time():
            page = ranking.search(user, options.pop("query"), candidates=candidates, **options)
        return Response(SearchResultsSerializer(page).data)


class SimilarNotes(OwnNotes):
    """Your notes that are closest in meaning to this one."""

    pagination_class = None
    query_class = ResultPageQuery

    def resources(self, data: Any) -> list[Resource]:
        return _result_resources(data)

    def get_queryset(self) -> QuerySet[Note]:
        return super().get_queryset().defer("content")

    @extend_schema(parameters=[ResultPageQuery], responses=SearchResultsSerializer)
    def get(self, request: Request, pk: int) -> Response:
        query = ResultPageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        page = ranking.similar(self.get_object(), **query.validated_data)
        return Response(SearchResultsSerializer(page).data)


class ScriptureCoverage(APIView):
    """How many of your notes refer to each book and chapter. Those without a note are left out."""

    query_class = LanguageQuery

    @extend_schema(parameters=[LanguageQuery], responses=ScriptureCoverageSerializer)
    def get(self, request: Request) -> Response:
        query = LanguageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        user: User = request.user  # type: ignore[assignment]
        books = verse_coverage(user, query.validated_data["language"])
        return Response(ScriptureCoverageSerializer({"books": books}).data)


class ParseScripture(APIView):
    """Finds references to scripture in a text, which is not stored."""

    serializer_class = ParseScriptureQuery

    @extend_schema(request=ParseScriptureQuery, responses=ParsedScriptureSerializer)
    def post(self, request: Request) -> Response:
        query = ParseScriptureQuery(data=request.data)
        query.is_valid(raise_exception=True)
        text, language = query.validated_data["text"], query.validated_data["language"]
        scan = find_mentions(text, in_field=query.validated_data["is_field"])
        found = [
            describe_mention(mention, text, language) for mention in scan.mentions[:MAX_REFERENCES]
        ]
        invalid = dict.fromkeys(
            text[part.start : part.end] for part in scan.invalid[:MAX_REFERENCES]
        )
        warnings = [f"“{part}” is not a scripture reference." for part in invalid]
        answer = {"references": found, "warnings": warnings}
        return Response(ParsedScriptureSerializer(answer).data)


class EmbeddingStatus(APIView):
    """How many of your notes semantic search can find, and the latest embedding job."""

    @extend_schema(responses=CoverageSerializer)
    def get(self, request: Request) -> Response:
        user: User = request.user  # type: ignore[assignment]
        jobs = BackgroundJob.objects.for_user(user).filter(job_type__in=EMBEDDING_JOB_TYPES)
        return Response(CoverageSerializer(coverage(user) | {"last_job": jobs.first()}).data)
