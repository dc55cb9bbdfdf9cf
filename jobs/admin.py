from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString

from jobs.models import BackgroundJob
from scribes.admin import ReadOnlyAdmin


@admin.register(BackgroundJob)
class BackgroundJobAdmin(ReadOnlyAdmin[BackgroundJob]):
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
