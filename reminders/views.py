from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Prefetch, QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from reminders.models import Delivery, Reminder, ReminderQuerySet
from reminders.serializers import (
    DeliverySerializer,
    NoteNotFound,
    Preview,
    PreviewQuery,
    ReminderQuery,
    ReminderSerializer,
    SnoozeSerializer,
)
from scribes.api.browsable import Resource
from scribes.api.errors import Conflict
from scribes.api.pagination import NamedPagination
from scribes.models import User
from scribes.monitoring.logging import current_request_id

T = TypeVar("T")


def not_found_if_note_deleted(save: Callable[..., T]) -> Callable[..., T]:
    """Run `save` in a transaction; 404 if the note is deleted between validation and commit."""

    @wraps(save)
    def wrapper(*args: Any, **kwargs: Any) -> T:
        try:
            with transaction.atomic():
                return save(*args, **kwargs)
        except IntegrityError as error:
            raise NoteNotFound from error

    return wrapper


class ReminderPagination(NamedPagination):
    name = "reminders"


class OwnReminders(generics.GenericAPIView[Reminder]):
    """The user's reminders. Another user's reminder is a 404, like one that does not exist."""

    queryset = Reminder.objects.all()
    serializer_class: type[BaseSerializer[Any]] = ReminderSerializer

    @property
    def user(self) -> User:
        return self.request.user  # type: ignore[return-value]

    def get_queryset(self) -> ReminderQuerySet:
        return Reminder.objects.for_user(self.user)

    def enforce_reminder_limit(self) -> None:
        """Raise ValidationError if the user has no room for another future reminder.

        Locks the user's row until the transaction ends, so concurrent requests cannot exceed the
        limit.
        """
        list(User.objects.filter(pk=self.user.pk).select_for_update(no_key=True).values_list("pk"))
        limit = settings.REMINDERS_PER_USER
        if Reminder.objects.for_user(self.user).in_future().count() >= limit:
            raise ValidationError(f"You already have {limit:,} future reminders, the maximum.")

    def reminder_response(self, reminder: Reminder) -> Response:
        reminder.refresh_from_db()
        return Response(ReminderSerializer(reminder, context=self.get_serializer_context()).data)

    def resources(self, data: Any) -> list[Resource]:
        return [_resource(data)]


def _resource(reminder: dict[str, Any]) -> Resource:
    """A reminder's links and buttons in the browsable API."""

    def url(name: str) -> str:
        return reverse(name, args=[reminder["id"]])

    links = {
        "Reminder": url("reminder-detail"),
        "Note": reverse("note-detail", args=[reminder["note_id"]]),
        "Deliveries": url("reminder-deliveries"),
        "Snooze": url("reminder-snooze"),
    }
    is_pending = reminder["status"] == Reminder.Status.PENDING
    buttons = {"Cancel": url("reminder-cancel")} if is_pending else {}
    return Resource(f"{reminder['status']}: {reminder['scheduled_at']}", links, buttons)


class ReminderList(OwnReminders, generics.ListCreateAPIView[Reminder]):
    """Your reminders, soonest first."""

    pagination_class = ReminderPagination
    query_class = ReminderQuery

    def resources(self, data: Any) -> list[Resource]:
        # The response to a POST is the new reminder.
        return [_resource(reminder) for reminder in data.get("reminders", [data])]

    @extend_schema(parameters=[ReminderQuery])
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def filter_queryset(  # type: ignore[override]
        self, queryset: QuerySet[Reminder]
    ) -> QuerySet[Reminder]:
        query = ReminderQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        newest = Delivery.objects.order_by("reminder_id", "-created_at").distinct("reminder_id")
        latest = Prefetch("deliveries", newest, to_attr="latest_deliveries")
        return queryset.filter(**query.filters()).prefetch_related(latest)

    @not_found_if_note_deleted
    def perform_create(self, serializer: BaseSerializer[Reminder]) -> None:
        self.enforce_reminder_limit()
        serializer.save(user=self.user, request_id=current_request_id())


class ReminderDetail(OwnReminders, generics.RetrieveUpdateDestroyAPIView[Reminder]):
    """One reminder. A new time, rule or time zone makes an ended reminder pending again."""

    http_method_names = ["get", "patch", "delete", "head", "options"]

    def get_queryset(self) -> ReminderQuerySet:
        """For a PATCH, lock the row: concurrent changes and sweeps must not undo each other."""
        own = super().get_queryset()
        return own.select_for_update(no_key=True) if self.request.method == "PATCH" else own

    @not_found_if_note_deleted
    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        reminder = self.get_object()
        serializer = self.get_serializer(reminder, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        if serializer.validated_data:
            if "scheduled_at" in serializer.validated_data and not reminder.is_pending:
                self.enforce_reminder_limit()
            reminder.change(**serializer.validated_data)
        return self.reminder_response(reminder)


class ReminderCancel(OwnReminders):
    """Cancel a reminder. A delivery that is being sent right now still arrives."""

    @extend_schema(request=None, responses=ReminderSerializer)
    def post(self, request: Request, pk: int) -> Response:
        reminder = self.get_object()
        if not reminder.cancel():
            raise Conflict("The reminder has already ended.")
        return self.reminder_response(reminder)


class ReminderSnooze(OwnReminders):
    """Put a reminder off, or get it again after it was sent. Afterwards it follows its rule."""

    serializer_class = SnoozeSerializer

    @extend_schema(responses=ReminderSerializer)
    @transaction.atomic
    def post(self, request: Request, pk: int) -> Response:
        reminder = self.get_object()
        query = SnoozeSerializer(data=request.data)
        query.is_valid(raise_exception=True)
        if not reminder.is_pending:
            self.enforce_reminder_limit()
        if not reminder.snooze(query.snooze_until()):
            raise Conflict("The reminder is cancelled.")
        return self.reminder_response(reminder)


class DeliveryPagination(NamedPagination):
    name = "deliveries"


class ReminderDeliveries(OwnReminders):
    """A reminder's deliveries, newest first, with the outcome of each attempt."""

    serializer_class = DeliverySerializer
    pagination_class = DeliveryPagination

    def resources(self, data: Any) -> list[Resource]:
        context = self.get_serializer_context()
        return [_resource(ReminderSerializer(self.get_object(), context=context).data)]

    def get(self, request: Request, pk: int) -> Response:
        deliveries = self.get_object().deliveries.prefetch_related("log")
        page = self.paginate_queryset(deliveries)  # type: ignore[arg-type]
        return self.get_paginated_response(self.get_serializer(page, many=True).data)


class ReminderPreview(generics.GenericAPIView[Reminder]):
    """Describe a rule in English, with the next five times it fires."""

    serializer_class = PreviewQuery

    @extend_schema(request=PreviewQuery, responses=Preview)
    def post(self, request: Request) -> Response:
        query = self.get_serializer(data=request.data)
        query.is_valid(raise_exception=True)
        return Response(Preview(query.validated_data).data)
