from __future__ import annotations

from typing import Any

from rest_framework import serializers

from jobs.serializers import JobSerializer
from notes.models import CONTENT_MAX_CHARACTERS, Note
from notes.passages import heading_over
from notes.scripture import VerseRange, references, unreadable
from notes.search import Hit
from scribes.browsable import Lines, Text

BEGINNING_CHARACTERS = 300


class NoteSerializer(serializers.ModelSerializer[Note]):
    content = Text(
        max_length=CONTENT_MAX_CHARACTERS,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        help_text="Markdown, at most a million characters.",
        style={"base_template": "textarea.html", "rows": 8},
    )
    tags = Lines(
        child=serializers.CharField(max_length=100),
        max_length=50,
        required=False,
        help_text="At most fifty, to find it by.",
    )
    warnings = serializers.SerializerMethodField(
        help_text="What was kept as typed, but could not be understood."
    )

    class Meta:
        model = Note
        fields = (
            "id",
            "title",
            "content",
            "preacher",
            "tags",
            "scripture_refs",
            "created_at",
            "updated_at",
            "warnings",
        )
        extra_kwargs = {
            "title": {"help_text": "What lists and reminders call it."},
            "preacher": {"help_text": "Whose sermon it is about, if it is about one."},
        }

    def get_warnings(self, note: Note) -> list[str]:
        pieces = unreadable(note.scripture_refs)
        return [f"scripture_refs: “{piece}” is no reference to scripture." for piece in pieces]


class ListedNoteSerializer(NoteSerializer):
    """A note in the list of all: a hundred contents may be a hundred megabytes."""

    beginning = serializers.CharField(
        read_only=True,
        help_text=f"The content's first {BEGINNING_CHARACTERS} characters, as typed.",
    )

    content = None  # type: ignore[assignment]

    class Meta:
        model = Note
        fields = (
            "id",
            "title",
            "beginning",
            "preacher",
            "tags",
            "scripture_refs",
            "created_at",
            "updated_at",
            "warnings",
        )


class NoteFilters(serializers.Serializer[Any]):
    """Which notes: the ones that all of these are true of."""

    tags = Lines(
        child=serializers.CharField(max_length=100),
        max_length=50,
        required=False,
        help_text="All of these tags.",
    )
    preacher = serializers.CharField(
        max_length=200, required=False, help_text="Part of the name, in any case."
    )
    scripture = serializers.CharField(
        max_length=200, required=False, help_text="Refers to a verse of this: “John 3:16”."
    )
    date_from = serializers.DateField(required=False, help_text="Written on this day or later.")
    date_to = serializers.DateField(required=False, help_text="Written on this day or before.")

    def validate_scripture(self, text: str) -> list[VerseRange]:
        verses = references(text)
        if not verses:
            raise serializers.ValidationError(f"“{text}” is no reference such as “John 3:16-18”.")
        return verses


FILTERS = tuple(NoteFilters().fields)


class Page(serializers.Serializer[Any]):
    limit = serializers.IntegerField(
        min_value=1, max_value=100, default=10, help_text="At most so many notes: ten if not said."
    )
    offset = serializers.IntegerField(
        min_value=0, max_value=2**31 - 1, default=0, help_text="Without so many of the best."
    )
    min_similarity = serializers.FloatField(
        min_value=-1, max_value=1, default=0, help_text="Of what meaning finds: 0 if not said."
    )


class SearchQuery(NoteFilters, Page):
    query = serializers.CharField(
        max_length=2000,
        help_text="Anything; in the search by words, “quotes” and -minus count.",
    )
    mode = serializers.ChoiceField(
        ["hybrid", "meaning", "words"], default="hybrid", help_text="What finds: both if not said."
    )

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """The query first; what a class inherits would stand before it."""
        fields = super().get_fields()
        return {"query": fields.pop("query"), "mode": fields.pop("mode")} | fields


class NoteListQuery(NoteFilters):
    ordering = serializers.ChoiceField(
        [f"{sign}{field}" for field in ("updated_at", "created_at", "title") for sign in ("-", "")],
        default="-updated_at",
        help_text="A minus: the latest first. The one edited last first, if not said.",
    )


class PassageSerializer(serializers.Serializer[Hit]):
    char_start = serializers.IntegerField(source="span.start")
    char_end = serializers.IntegerField(source="span.end")
    text = serializers.SerializerMethodField(help_text="content[char_start:char_end]")
    heading = serializers.SerializerMethodField(help_text="Of the section it stands in, or “”.")
    excerpt = serializers.CharField(help_text="HTML, with the query's words in <mark>.")

    def get_text(self, hit: Hit) -> str:
        return hit.note.content[hit.span.start : hit.span.end]

    def get_heading(self, hit: Hit) -> str:
        return heading_over(hit.note.content, hit.span.start)


class FoundNoteSerializer(serializers.Serializer[Note]):
    """A note in a list of results: without its content, which may be long. With its fields written
    out: a ModelSerializer would find them out again for every search."""

    id = serializers.IntegerField()
    title = serializers.CharField()
    preacher = serializers.CharField()
    tags = serializers.ListField(child=serializers.CharField())
    scripture_refs = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class SearchResultSerializer(serializers.Serializer[Hit]):
    note = FoundNoteSerializer()
    score = serializers.FloatField(help_text="What the results are ordered by.")
    similarity_score = serializers.FloatField(
        source="similarity",
        allow_null=True,
        help_text="Cosine, -1 to 1; null for a note that meaning did not find.",
    )
    why = serializers.ChoiceField(["meaning", "words", "both"], help_text="What found it.")
    passage = PassageSerializer(source="*")


class SearchResults(serializers.Serializer[Any]):
    results = SearchResultSerializer(source="hits", many=True)
    degraded = serializers.ListField(
        child=serializers.CharField(), help_text="Ways of searching that are out of order."
    )


class EmbeddingFailure(serializers.Serializer[Any]):
    """A note that is tried again every hour, and as soon as its text is another."""

    note_id = serializers.IntegerField(source="pk")
    error_class = serializers.CharField(source="due__error_class")
    message = serializers.CharField(source="due__error")


class Coverage(serializers.Serializer[Any]):
    total_notes = serializers.IntegerField()
    notes_with_embeddings = serializers.IntegerField()
    notes_without_embeddings = serializers.IntegerField()
    current = serializers.IntegerField(help_text="Can be found by meaning.")
    stale = serializers.IntegerField(help_text="Edited since they were embedded.")
    missing = serializers.IntegerField(help_text="Not embedded yet.")
    failed = serializers.IntegerField(help_text="Their embedding failed: see `failures`.")
    coverage_percent = serializers.FloatField(help_text="Of the notes that are not blank.")
    failures = EmbeddingFailure(many=True, help_text="The first of them.")
    model = serializers.CharField()
    dimension = serializers.IntegerField(allow_null=True, help_text="null without its files.")
    degraded = serializers.ListField(
        child=serializers.CharField(), help_text="“meaning”, if the model's files cannot be read."
    )
    last_job = JobSerializer(allow_null=True)


class RegenerateQuery(serializers.Serializer[Any]):
    only_stale = serializers.BooleanField(
        default=False, help_text="Only notes whose text or model has changed."
    )
    dry_run = serializers.BooleanField(default=False, help_text="Only say how much work it is.")


class Estimate(serializers.Serializer[Any]):
    notes = serializers.IntegerField()
    passages = serializers.IntegerField(help_text="About: from the length of the texts.")
    seconds = serializers.IntegerField(
        allow_null=True, help_text="About, as fast as the latest jobs; null before the first."
    )


class Accepted(serializers.Serializer[Any]):
    message = serializers.CharField()
    status = serializers.CharField()
    task_id = serializers.UUIDField(help_text="The job's id, for GET /jobs/{job_id}.")
