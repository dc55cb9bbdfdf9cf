from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db import DataError
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from jobs.models import BackgroundJob


@admin.register(BackgroundJob)
class BackgroundJobAdmin(admin.ModelAdmin[BackgroundJob]):
    """Read-only: a job changes by its transitions, not by a form."""

    list_display = ("job_type", "user", "status", "progress", "failed_items", "created_at")
    list_filter = ("status", "job_type", "created_at")
    search_fields = ("job_id", "user__email")
    list_select_related = ("user",)
    ordering = ("-created_at",)

    @admin.display(description="progress", ordering="progress_percent")
    def progress(self, job: BackgroundJob) -> SafeString:
        return format_html(
            '<progress max="100" value="{}" style="width: 6em" aria-label="progress"></progress>'
            "<br>{} % · {}/{}",
            *(job.progress_percent, job.progress_percent, job.done_items, job.total_items),
        )

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """A filter that PostgreSQL refuses, such as a NUL, is a wrong filter, not an error."""
        try:
            return super().get_changelist_instance(request)
        except (DataError, OverflowError, ValueError) as error:
            raise IncorrectLookupParameters(error) from error

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
