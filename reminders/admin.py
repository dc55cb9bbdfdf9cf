from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from reminders.models import Delivery, Reminder
from scribes.admin import ReadOnlyAdmin


class DeliveryInline(admin.TabularInline[Delivery, Reminder]):
    """What was sent for a reminder, with what came of each attempt."""

    model = Delivery
    fields = readonly_fields = (
        *("occurrence_at", "channel", "status", "is_late", "sent_at", "next_attempt_at", "log"),
    )
    extra = 0
    can_delete = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return super().get_queryset(request).prefetch_related("log")

    @admin.display(description="attempts")
    def log(self, delivery: Delivery) -> SafeString:
        rows = ((a.number, a.get_outcome_display(), a.reason) for a in delivery.log.all())
        return format_html_join("", "<div>{}. {} {}</div>", rows)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Reminder)
class ReminderAdmin(ReadOnlyAdmin[Reminder]):
    list_display = ("note", "user", "status", "scheduled_at", "time_zone", "rrule", "channels")
    list_filter = ("status", "scheduled_at")
    search_fields = ("note__title", "user__email")
    list_select_related = ("user", "note")
    ordering = ("-scheduled_at",)
    inlines = (DeliveryInline,)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin[Delivery]):
    list_display = ("reminder", "user", "channel", "status", "attempts", "next_attempt_at", "error")
    list_filter = ("status", "channel", "is_late")
    search_fields = ("id", "user__email", "reminder__note__title")
    list_select_related = ("user", "reminder")
    ordering = ("-created_at",)
