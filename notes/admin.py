from __future__ import annotations

from django.contrib import admin
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from notes.models import EmbeddingDue, Note, ServedModel
from scribes.admin import ReadOnlyAdmin
from scribes.display import badge, moment


@admin.register(Note)
class NoteAdmin(ReadOnlyAdmin[Note]):
    """What a note is about; what it says is its owner's business, and long."""

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
        due = EmbeddingDue.objects.filter(note=OuterRef("pk"))
        return super().get_queryset(request).defer("content").annotate(is_due=Exists(due))

    @admin.display(description="embedding", ordering="is_due")
    def embedding(self, note: Note) -> SafeString | str:
        if not note.has_text:
            return "–"
        return badge("pending", "due") if note.is_due else badge("done", "current")  # type: ignore[attr-defined]

    @admin.display(description="updated", ordering="updated_at")
    def updated(self, note: Note) -> SafeString | str:
        return moment(note.updated_at)


@admin.register(ServedModel)
class ServedModelAdmin(ReadOnlyAdmin[ServedModel]):
    list_display = ("user", "model", "next", "previous")
    list_select_related = ("user", "model", "next", "previous")
    search_fields = ("user__email", "model__version")
    ordering = ("user",)
