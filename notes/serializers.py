from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from jobs.serializers import JobSerializer
from notes.models import CONTENT_MAX_CHARACTERS, Note
from notes.scripture.book_names import LANGUAGES
from notes.scripture.formatting import describe_mention
from notes.scripture.references import MAX_SCANNED_CHARACTERS, find_references
from notes.scripture.verse_range import VerseRange
from notes.search.hits import Hit, ShownPassage
from notes.search.query import HYBRID, MODES
from scribes.api.browsable import LinesField, MultilineTextField

PREVIEW_CHARACTERS = 300

# --- Notes ----------------------------------------------------------------------------------


class FoundReferenceSerializer(serializers.Serializer[Any]):
    text = serializers.CharField(help_text="As it is written.")
    start = serializers.IntegerField(help_text="Where it begins in the text, in characters.")
    end = serializers.IntegerField(help_text="The position after its last character.")
    canonical = serializers.CharField(help_text="For example John 3:16-18.")
    osis = serializers.CharField(help_text="For example John.3.16-John.3.18.")


class NoteReferenceSerializer(FoundReferenceSerializer):
    field = serializers.ChoiceField(
        choices=("scripture_refs", "content"), help_text="The field of the note that it is in."
    )


class NoteSerializer(serializers.ModelSerializer[Note]):
    content = MultilineTextField(
        max_length=CONTENT_MAX_CHARACTERS,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        help_text="Markdown, at most a million characters.",
        style={"base_template": "textarea.html", "rows": 8},
    )
    tags = LinesField(
        child=serializers.CharField(max_length=100),
        max_length=50,
        required=False,
        help_text="At most 50 tags.",
    )
    references = serializers.SerializerMethodField(
        help_text="The references to scripture, in the order of the text."
    )
    warnings = serializers.SerializerMethodField(
        help_text="Parts of scripture_refs that are stored but not understood."
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
            "references",
            "created_at",
            "updated_at",
            "warnings",
        )
        extra_kwargs = {
            "title": {"help_text": "Shown in lists and reminders."},
            "preacher": {"help_text": "Who preached the sermon, for notes on a sermon."},
        }

    @extend_schema_field(NoteReferenceSerializer(many=True))
    def get_references(self, note: Note) -> list[dict[str, Any]]:
        return [
            {"field": source, **describe_mention(mention, getattr(note, source))}
            for source, mention in note.mentions
        ]

    def get_warnings(self, note: Note) -> list[str]:
        pieces = note.unparsed_references
        return [f"scripture_refs: “{piece}” is not a scripture reference." for piece in pieces]


class ListedNoteSerializer(NoteSerializer):
    """A note in a list, with the start of its content: a hundred contents may be 100 MB."""

    preview = serializers.CharField(
        read_only=True,
        help_text=f"The first {PREVIEW_CHARACTERS} characters of the content.",
    )

    content = None  # type: ignore[assignment]
    references = None  # type: ignore[assignment]

    class Meta:
        model = Note
        fields = (
            "id",
            "title",
            "preview",
            "preacher",
            "tags",
            "scripture_refs",
            "created_at",
            "updated_at",
            "warnings",
        )


class NoteFilters(serializers.Serializer[Any]):
    """Conditions that a note must meet, all of them."""

    tags = LinesField(
        child=serializers.CharField(max_length=100),
        max_length=50,
        required=False,
        help_text="The note has all of these tags.",
    )
    preacher = serializers.CharField(
        max_length=200, required=False, help_text="Part of the name; upper and lower case match."
    )
    scripture = serializers.CharField(
        max_length=200,
        required=False,
        help_text="The note refers to any of these verses, such as “John 3:16”.",
    )
    date_from = serializers.DateField(required=False, help_text="Created on this day or later.")
    date_to = serializers.DateField(required=False, help_text="Created on this day or earlier.")

    def validate_scripture(self, text: str) -> list[VerseRange]:
        verses = find_references(text)
        if not verses:
            raise serializers.ValidationError(
                f"“{text}” is not a scripture reference such as “John 3:16-18”."
            )
        return verses


class LanguageQuery(serializers.Serializer[Any]):
    language = serializers.ChoiceField(
        choices=LANGUAGES,
        default="en",
        help_text="The language of the names of books (default English).",
    )


class ChapterCoverageSerializer(serializers.Serializer[Any]):
    chapter = serializers.IntegerField()
    notes = serializers.IntegerField(help_text="Number of notes that refer to it.")


class BookCoverageSerializer(serializers.Serializer[Any]):
    osis = serializers.CharField(help_text="The book's code in OSIS, such as 1Cor.")
    name = serializers.CharField()
    notes = serializers.IntegerField(help_text="Number of notes that refer to it.")
    chapters = ChapterCoverageSerializer(many=True)


class ScriptureCoverageSerializer(serializers.Serializer[Any]):
    books = BookCoverageSerializer(many=True, help_text="In canonical order.")


class ParseScriptureQuery(LanguageQuery):
    text = serializers.CharField(
        max_length=MAX_SCANNED_CHARACTERS,
        trim_whitespace=False,
        help_text="The text in which references are looked for.",
        style={"base_template": "textarea.html", "rows": 4},
    )
    is_field = serializers.BooleanField(
        default=False,
        help_text="Whether the text is a list of references, in which books without chapters count.",
    )


class ParsedScriptureSerializer(serializers.Serializer[Any]):
    references = FoundReferenceSerializer(many=True)
    warnings = serializers.ListField(
        child=serializers.CharField(), help_text="Parts that name no verse, such as John 3:99."
    )


FILTERS = tuple(NoteFilters().fields)


class NoteListQuery(NoteFilters):
    ordering = serializers.ChoiceField(
        [f"{sign}{field}" for field in ("updated_at", "created_at", "title") for sign in ("-", "")],
        default="-updated_at",
        help_text="Sort order; a minus means descending (default -updated_at).",
    )


# --- Search ---------------------------------------------------------------------------------


class ResultPageQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(
        min_value=1, max_value=100, default=10, help_text="Page size (default 10)."
    )
    offset = serializers.IntegerField(
        min_value=0, max_value=2**31 - 1, default=0, help_text="Number of results to skip."
    )
    min_similarity = serializers.FloatField(
        min_value=-1,
        max_value=1,
        default=0,
        help_text="Minimum cosine similarity of semantic matches (default 0).",
    )


class SearchQuery(NoteFilters, ResultPageQuery):
    query = serializers.CharField(
        max_length=2000,
        help_text="Words or a question. -minus excludes; “quotes” count in keyword matches.",
    )
    mode = serializers.ChoiceField(
        MODES, default=HYBRID, help_text=f"Search mode (default {HYBRID})."
    )

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """Put the query and the mode before the inherited fields."""
        fields = super().get_fields()
        return {"query": fields.pop("query"), "mode": fields.pop("mode")} | fields


class PassageSerializer(serializers.Serializer[ShownPassage]):
    char_start = serializers.IntegerField()
    char_end = serializers.IntegerField()
    text = serializers.CharField(help_text="content[char_start:char_end]")
    heading = serializers.CharField(help_text="The heading of its section, or “”.")
    excerpt = serializers.CharField(help_text="HTML, with the words of the query in <mark>.")


class NoteSummarySerializer(serializers.Serializer[Note]):
    """A note in search results, without its content."""

    # Not a ModelSerializer, which inspects the model for every search: the row "POST
    # /semantic/search, hybrid, p50" of docs/benchmarks.md exceeds its limit with it.
    id = serializers.IntegerField()
    title = serializers.CharField()
    preacher = serializers.CharField()
    tags = serializers.ListField(child=serializers.CharField())
    scripture_refs = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class SearchResultSerializer(serializers.Serializer[Hit]):
    note = NoteSummarySerializer()
    score = serializers.FloatField(help_text="Results are sorted by this, highest first.")
    similarity_score = serializers.FloatField(
        source="similarity",
        allow_null=True,
        help_text="Cosine similarity, -1 to 1; null without a semantic match.",
    )
    matched_by = serializers.ChoiceField(
        ["semantic", "keyword", "both"], help_text="The kind of search that found the note."
    )
    passage = PassageSerializer()


class SearchResultsSerializer(serializers.Serializer[Any]):
    results = SearchResultSerializer(source="hits", many=True)
    degraded = serializers.ListField(
        child=serializers.CharField(), help_text="Search modes that are unavailable."
    )


# --- Embeddings -----------------------------------------------------------------------------


class EmbeddingFailureSerializer(serializers.Serializer[Any]):
    """A note that could not be embedded. It is tried again every hour and when its text changes."""

    note_id = serializers.IntegerField(source="pk")
    error_class = serializers.CharField(source="pending_embedding__error_class")
    message = serializers.CharField(source="pending_embedding__error")


class CoverageSerializer(serializers.Serializer[Any]):
    total_notes = serializers.IntegerField()
    notes_with_embeddings = serializers.IntegerField()
    notes_without_embeddings = serializers.IntegerField()
    current = serializers.IntegerField(help_text="Notes that semantic search finds.")
    stale = serializers.IntegerField(help_text="Notes edited since they were embedded.")
    missing = serializers.IntegerField(help_text="Notes not embedded yet.")
    failed = serializers.IntegerField(help_text="Notes whose embedding failed: see `failures`.")
    coverage_percent = serializers.FloatField(
        help_text="Share of `current` in the notes that are not blank."
    )
    failures = EmbeddingFailureSerializer(many=True, help_text="The first failures.")
    model = serializers.CharField(help_text="The embedding model that your searches use.")
    dimension = serializers.IntegerField(
        allow_null=True, help_text="Dimension of its vectors; null if its files are missing."
    )
    degraded = serializers.ListField(
        child=serializers.CharField(),
        help_text="Search modes that are unavailable: semantic without the model's files.",
    )
    last_job = JobSerializer(allow_null=True, help_text="The latest embedding job.")


class RegenerateQuery(serializers.Serializer[Any]):
    only_stale = serializers.BooleanField(
        default=False, help_text="Only notes whose text or model has changed."
    )
    dry_run = serializers.BooleanField(
        default=False, help_text="Estimate the work without starting a job."
    )


class EstimateSerializer(serializers.Serializer[Any]):
    notes = serializers.IntegerField()
    passages = serializers.IntegerField(help_text="An estimate from the length of the notes.")
    seconds = serializers.IntegerField(
        allow_null=True,
        help_text="An estimate from the speed of the latest jobs; null before the first.",
    )
