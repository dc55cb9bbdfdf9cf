from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from reminders.models import Delivery, Notification, Reminder
from scribes.admin import ReadOnlyAdmin, TabularInline
from scribes.display import badge, moment


class DeliveryInline(TabularInline[Delivery, Reminder]):
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
    list_display = ("note", "user", "state", "due", "time_zone", "rrule", "channels")
    list_filter = ("status", "scheduled_at")
    search_fields = ("note__title", "user__email")
    list_select_related = ("user", "note")
    ordering = ("-scheduled_at",)
    inlines = (DeliveryInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Reminder]:
        return super().get_queryset(request).defer("note__content")

    @admin.display(description="state", ordering="status")
    def state(self, reminder: Reminder) -> SafeString:
        return badge(reminder.status)

    @admin.display(description="due", ordering="scheduled_at")
    def due(self, reminder: Reminder) -> SafeString | str:
        return moment(reminder.scheduled_at)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin[Delivery]):
    list_display = ("reminder", "user", "channel", "state", "attempts", "due", "sent", "error")
    list_filter = ("status", "channel", "is_late")
    search_fields = ("id", "user__email", "reminder__note__title")
    list_select_related = ("user", "reminder")
    ordering = ("-created_at",)

    @admin.display(description="state", ordering="status")
    def state(self, delivery: Delivery) -> SafeString:
        return badge(delivery.status)

    @admin.display(description="next attempt", ordering="next_attempt_at")
    def due(self, delivery: Delivery) -> SafeString | str:
        is_over = delivery.status not in Delivery.ACTIVE
        return "–" if is_over else moment(delivery.next_attempt_at)

    @admin.display(description="sent", ordering="sent_at")
    def sent(self, delivery: Delivery) -> SafeString | str:
        return moment(delivery.sent_at)


@admin.register(Notification)
class NotificationAdmin(ReadOnlyAdmin[Notification]):
    list_display = ("title", "user", "created", "read")
    list_filter = (("read_at", admin.EmptyFieldListFilter), "created_at")
    search_fields = ("title", "user__email")
    list_select_related = ("user",)
    ordering = ("-created_at", "-id")

    @admin.display(description="created", ordering="created_at")
    def created(self, notification: Notification) -> SafeString | str:
        return moment(notification.created_at)

    @admin.display(description="read", ordering="read_at")
    def read(self, notification: Notification) -> SafeString | str:
        return moment(notification.read_at)
