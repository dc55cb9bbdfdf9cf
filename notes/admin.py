from __future__ import annotations

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from notes.models import Note, UserEmbeddingModel
from notes.pending_embeddings import PendingEmbedding
from scribes.admin import ReadOnlyAdmin
from scribes.presentation import badge, relative_time


@admin.register(Note)
class NoteAdmin(ReadOnlyAdmin[Note]):
    """Shows everything but the content, which is private to its owner, and long."""

    list_display = ("title", "user", "preacher", "embedding", "updated")
    list_filter = ("has_text", "updated_at")
    search_fields = ("title", "user__email", "preacher")
    list_select_related = ("user",)
    ordering = ("-updated_at", "-id")
    fields = (
        *("title", "user", "preacher", "tags", "scripture_refs"),
        *("embedding", "created_at", "updated_at"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Note]:
        is_pending = Exists(PendingEmbedding.objects.filter(note=OuterRef("pk")))
        return super().get_queryset(request).defer("content").annotate(is_pending=is_pending)

    @admin.display(description="embedding", ordering="is_pending")
    def embedding(self, note: Note) -> SafeString | str:
        if not note.has_text:
            return "–"
        return badge("pending") if note.is_pending else badge("done", "current")  # type: ignore[attr-defined]

    @admin.display(description="updated", ordering="updated_at")
    def updated(self, note: Note) -> SafeString | str:
        return relative_time(note.updated_at)


@admin.register(UserEmbeddingModel)
class UserEmbeddingModelAdmin(ReadOnlyAdmin[UserEmbeddingModel]):
    list_display = ("user", "active_model", "next_model", "previous_model")
    list_select_related = ("user", "active_model", "next_model", "previous_model")
    search_fields = ("user__email", "active_model__version")
    ordering = ("user",)
