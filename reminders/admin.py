from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from reminders.models import Delivery, Notification, Reminder
from scribes.admin import ReadOnlyAdmin, TabularInline
from scribes.presentation import badge, relative_time


class DeliveryInline(TabularInline[Delivery, Reminder]):
    """A reminder's deliveries, with the outcome of each attempt."""

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
    list_display = ("note", "user", "status_badge", "next_time", "time_zone", "rrule", "channels")
    list_filter = ("status", "scheduled_at")
    search_fields = ("note__title", "user__email")
    list_select_related = ("user", "note")
    ordering = ("-scheduled_at",)
    inlines = (DeliveryInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Reminder]:
        """With the note, which the page of one reminder shows, too, but without its long content."""
        return super().get_queryset(request).select_related("note").defer("note__content")

    @admin.display(description="status", ordering="status")
    def status_badge(self, reminder: Reminder) -> SafeString:
        return badge(reminder.status)

    @admin.display(description="scheduled", ordering="scheduled_at")
    def next_time(self, reminder: Reminder) -> SafeString | str:
        return relative_time(reminder.scheduled_at)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin[Delivery]):
    list_display = (
        *("reminder", "user", "channel", "status_badge", "attempts", "next_attempt", "sent"),
        "error",
    )
    list_filter = ("status", "channel", "is_late")
    search_fields = ("id", "user__email", "reminder__note__title")
    list_select_related = ("user", "reminder")
    ordering = ("-created_at",)
    fields = (
        *("reminder", "user", "occurrence_at", "channel", "status", "is_late", "is_superseded"),
        *("digest", "attempts", "claim_seq", "lease_expires_at", "next_attempt_at"),
        *("dispatched_at", "error", "sent_at"),
    )

    @admin.display(description="status", ordering="status")
    def status_badge(self, delivery: Delivery) -> SafeString:
        return badge(delivery.status)

    @admin.display(description="next attempt", ordering="next_attempt_at")
    def next_attempt(self, delivery: Delivery) -> SafeString | str:
        has_ended = delivery.status not in Delivery.ACTIVE
        return "–" if has_ended else relative_time(delivery.next_attempt_at)

    @admin.display(description="sent", ordering="sent_at")
    def sent(self, delivery: Delivery) -> SafeString | str:
        return relative_time(delivery.sent_at)


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin[Notification]):
    list_display = ("title", "user", "created", "read")
    list_filter = (("read_at", admin.EmptyFieldListFilter), "created_at")
    search_fields = ("title", "user__email")
    list_select_related = ("user",)
    ordering = ("-created_at", "-id")

    @admin.display(description="created", ordering="created_at")
    def created(self, notification: Notification) -> SafeString | str:
        return relative_time(notification.created_at)

    @admin.display(description="read", ordering="read_at")
    def read(self, notification: Notification) -> SafeString | str:
        return relative_time(notification.read_at)
