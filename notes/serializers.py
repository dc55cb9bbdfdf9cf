from __future__ import annotations

from typing import Any

from rest_framework import serializers

from notes.models import CONTENT_MAX_CHARACTERS, Note, Passage


class NoteSerializer(serializers.ModelSerializer[Note]):
    content = serializers.CharField(
        max_length=CONTENT_MAX_CHARACTERS,
        required=False,
        allow_blank=True,
        trim_whitespace=False,
        help_text="Markdown, at most a million characters.",
        style={"base_template": "textarea.html"},
    )
    tags = serializers.ListField(
        child=serializers.CharField(max_length=100), max_length=50, required=False
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
        )


class SearchQuery(serializers.Serializer[Any]):
    query = serializers.CharField(max_length=2000)
    limit = serializers.IntegerField(min_value=1, max_value=100, default=10)
    offset = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)
    min_similarity = serializers.FloatField(min_value=-1, max_value=1, default=0)


class PassageSerializer(serializers.ModelSerializer[Passage]):
    text = serializers.SerializerMethodField(help_text="content[char_start:char_end]")

    class Meta:
        model = Passage
        fields = ("char_start", "char_end", "text")
        read_only_fields = fields

    def get_text(self, passage: Passage) -> str:
        return passage.note.content[passage.char_start : passage.char_end]


class FoundNoteSerializer(serializers.ModelSerializer[Note]):
    """A note in a list of results: without its content, which may be long."""

    class Meta:
        model = Note
        fields = ("id", "title", "preacher", "tags", "scripture_refs", "created_at", "updated_at")
        read_only_fields = fields


class SearchResultSerializer(serializers.Serializer[Passage]):
    note = FoundNoteSerializer()
    similarity_score = serializers.FloatField(source="similarity", help_text="Cosine, -1 to 1.")
    passage = PassageSerializer(source="*")


class SearchResults(serializers.Serializer[Any]):
    results = SearchResultSerializer(many=True)


class Coverage(serializers.Serializer[Any]):
    total_notes = serializers.IntegerField()
    notes_with_embeddings = serializers.IntegerField()
    notes_without_embeddings = serializers.IntegerField()
    coverage_percent = serializers.FloatField()
    model = serializers.CharField()
    dimension = serializers.IntegerField()


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
