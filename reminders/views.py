from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from reminders import links
from reminders.feed import feed
from reminders.models import (
    Delivery,
    Notification,
    Reminder,
    ReminderPreferences,
    ReminderQuerySet,
)
from reminders.serializers import (
    DeliverySerializer,
    NoSuchNote,
    NotificationQuery,
    NotificationSerializer,
    PreferencesSerializer,
    Preview,
    PreviewQuery,
    ReadCount,
    ReminderQuery,
    ReminderSerializer,
    RenewQuery,
    SnoozeSerializer,
)
from scribes.api import Conflict, NamedPage, problem
from scribes.browsable import Place
from scribes.models import User

T = TypeVar("T")


def unless_its_note_goes(save: Callable[..., T]) -> Callable[..., T]:
    """In one transaction; 404 where the note was deleted between the look for it and the commit."""

    @wraps(save)
    def saved(*args: Any, **kwargs: Any) -> T:
        try:
            with transaction.atomic():
                return save(*args, **kwargs)
        except IntegrityError as error:
            raise NoSuchNote from error

    return saved


class ReminderPage(NamedPage):
    name = "reminders"


class OwnReminders(generics.GenericAPIView[Reminder]):
    """Somebody else's reminder is as missing as one that never was: 404."""

    queryset = Reminder.objects.all()
    serializer_class: type[BaseSerializer[Any]] = ReminderSerializer

    @property
    def user(self) -> User:
        return self.request.user  # type: ignore[return-value]

    def get_queryset(self) -> ReminderQuerySet:
        return Reminder.objects.for_user(self.user)

    def refuse_too_many(self) -> None:
        """Raises ValidationError where one more to come is one too many. Of a user's requests one
        at a time comes past here, until its transaction ends, so that the limit is one."""
        list(User.objects.filter(pk=self.user.pk).select_for_update(no_key=True).values_list("pk"))
        own = Reminder.objects.for_user(self.user)
        if own.to_come().count() >= settings.REMINDERS_PER_USER:
            most = f"{settings.REMINDERS_PER_USER:,}"
            raise ValidationError(f"You have {most} reminders to come, and no more are allowed.")

    def changed(self, reminder: Reminder) -> Response:
        reminder.refresh_from_db()
        return Response(ReminderSerializer(reminder, context=self.get_serializer_context()).data)

    def places(self, data: Any) -> list[Place]:
        return [_place(data)]


def _place(reminder: dict[str, Any]) -> Place:
    """Where one can go from a reminder, in the browsable API."""

    def url(name: str) -> str:
        return reverse(name, args=[reminder["id"]])

    links = {
        "Reminder": url("reminder-detail"),
        "Note": reverse("note-detail", args=[reminder["note_id"]]),
        "Deliveries": url("reminder-deliveries"),
        "Snooze": url("reminder-snooze"),
    }
    pending = reminder["status"] == Reminder.Status.PENDING
    buttons = {"Cancel": url("reminder-cancel")} if pending else {}
    return Place(f"{reminder['status']}: {reminder['scheduled_at']}", links, buttons)


class ReminderList(OwnReminders, generics.ListCreateAPIView[Reminder]):
    """Your reminders, the one due first first."""

    pagination_class = ReminderPage
    query_class = ReminderQuery

    def places(self, data: Any) -> list[Place]:
        # What it answers to a POST is the new reminder.
        return [_place(reminder) for reminder in data.get("reminders", [data])]

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

    @unless_its_note_goes
    def perform_create(self, serializer: BaseSerializer[Reminder]) -> None:
        self.refuse_too_many()
        serializer.save(user=self.user)


class ReminderDetail(OwnReminders, generics.RetrieveUpdateDestroyAPIView[Reminder]):
    """A new time, rule or zone makes an ended reminder pending again."""

    http_method_names = ["get", "patch", "delete", "head", "options"]

    def get_queryset(self) -> ReminderQuerySet:
        """A change waits for another one and for a sweep, or one of them would be undone."""
        own = super().get_queryset()
        return own.select_for_update(no_key=True) if self.request.method == "PATCH" else own

    @unless_its_note_goes
    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        reminder = self.get_object()
        serializer = self.get_serializer(reminder, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        if serializer.validated_data:
            if "scheduled_at" in serializer.validated_data and not reminder.is_pending:
                self.refuse_too_many()
            reminder.change(**serializer.validated_data)
        return self.changed(reminder)


class ReminderCancel(OwnReminders):
    """It is not sent any more, unless it is being sent at this moment."""

    @extend_schema(request=None, responses=ReminderSerializer)
    def post(self, request: Request, pk: int) -> Response:
        reminder = self.get_object()
        if not reminder.cancel():
            raise Conflict("The reminder has ended already.")
        return self.changed(reminder)


class ReminderSnooze(OwnReminders):
    """Put it off, or have it again after it was sent. Its rule goes on afterwards."""

    serializer_class = SnoozeSerializer

    @extend_schema(responses=ReminderSerializer)
    @transaction.atomic
    def post(self, request: Request, pk: int) -> Response:
        reminder = self.get_object()
        query = SnoozeSerializer(data=request.data)
        query.is_valid(raise_exception=True)
        if not reminder.is_pending:
            self.refuse_too_many()
        if not reminder.snooze(query.moment()):
            raise Conflict("The reminder is cancelled.")
        return self.changed(reminder)


class DeliveryPage(NamedPage):
    name = "deliveries"


class ReminderDeliveries(OwnReminders):
    """What was sent, the newest first, with what came of each attempt."""

    serializer_class = DeliverySerializer
    pagination_class = DeliveryPage

    def places(self, data: Any) -> list[Place]:
        context = self.get_serializer_context()
        return [_place(ReminderSerializer(self.get_object(), context=context).data)]

    def get(self, request: Request, pk: int) -> Response:
        deliveries = self.get_object().deliveries.prefetch_related("log")
        page = self.paginate_queryset(deliveries)  # type: ignore[arg-type]
        return self.get_paginated_response(self.get_serializer(page, many=True).data)


class ReminderPreview(generics.GenericAPIView[Reminder]):
    """A rule in words, and the next five times it fires."""

    serializer_class = PreviewQuery

    @extend_schema(request=PreviewQuery, responses=Preview)
    def post(self, request: Request) -> Response:
        query = self.get_serializer(data=request.data)
        query.is_valid(raise_exception=True)
        return Response(Preview(query.validated_data).data)


# --- Preferences ----------------------------------------------------------------------------


class Preferences(generics.RetrieveUpdateAPIView[ReminderPreferences]):
    """Quiet hours, a daily digest, your webhook, and the address of your calendar feed."""

    serializer_class = PreferencesSerializer
    http_method_names = ["get", "patch", "head", "options"]

    def get_object(self) -> ReminderPreferences:
        """A change waits for another one, such as a renewed secret, or it would undo that."""
        preferences = ReminderPreferences.of(self.request.user)  # type: ignore[arg-type]
        if self.request.method != "PATCH":
            return preferences
        same = ReminderPreferences.objects.filter(pk=preferences.pk)
        return same.select_for_update(no_key=True).get()

    @transaction.atomic
    def patch(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().patch(request, *args, **kwargs)

    def places(self, data: Any) -> list[Place]:
        links = {"Calendar": data["feed_url"], "New secrets": reverse("reminder-renew-secret")}
        return [Place("Your feed and your webhook", links, {})]


class RenewSecret(generics.GenericAPIView[ReminderPreferences]):
    """A new secret of the webhook or of the feed; the old one is worthless from now on."""

    serializer_class = RenewQuery

    @extend_schema(request=RenewQuery, responses=PreferencesSerializer)
    def post(self, request: Request) -> Response:
        query = self.get_serializer(data=request.data)
        query.is_valid(raise_exception=True)
        preferences = ReminderPreferences.of(request.user)  # type: ignore[arg-type]
        preferences.renew(query.validated_data["of"])
        return Response(PreferencesSerializer(preferences).data)


# --- In-app ---------------------------------------------------------------------------------


class NotificationPage(NamedPage):
    name = "notifications"


class OwnNotifications(generics.GenericAPIView[Notification]):
    queryset = Notification.objects.all()
    serializer_class: type[BaseSerializer[Any]] = NotificationSerializer

    def get_queryset(self) -> QuerySet[Notification]:
        return Notification.objects.for_user(self.request.user)  # type: ignore[arg-type]


@extend_schema(parameters=[NotificationQuery])
class NotificationList(OwnNotifications, generics.ListAPIView[Notification]):
    """What the in-app channel has for you, newest first; ?unread=true leaves out what you read."""

    pagination_class = NotificationPage
    query_class = NotificationQuery

    def places(self, data: Any) -> list[Place]:
        everything = {"Mark all as read": reverse("notification-read-all")}
        some = [_notification_place(notification) for notification in data["notifications"]]
        return [*some, Place(f"{data['total']} in all", {}, everything)]

    def filter_queryset(  # type: ignore[override]
        self, queryset: QuerySet[Notification]
    ) -> QuerySet[Notification]:
        query = NotificationQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        unread = query.validated_data["unread"]
        return queryset if unread is None else queryset.filter(read_at__isnull=unread)


def _notification_place(notification: dict[str, Any]) -> Place:
    reminder = {"Reminder": reverse("reminder-detail", args=[notification["reminder_id"]])}
    read = {"Mark as read": reverse("notification-read", args=[notification["id"]])}
    return Place(notification["title"], reminder, {} if notification["read_at"] else read)


class NotificationRead(OwnNotifications):
    """It is read; the first time counts."""

    @extend_schema(request=None, responses=NotificationSerializer)
    def post(self, request: Request, pk: int) -> Response:
        notification = self.get_object()
        self.get_queryset().filter(pk=pk, read_at=None).update(read_at=timezone.now())
        notification.refresh_from_db()
        return Response(self.get_serializer(notification).data)


class NotificationReadAll(OwnNotifications):
    """All of them are read."""

    @extend_schema(request=None, responses=ReadCount)
    def post(self, request: Request) -> Response:
        read = self.get_queryset().filter(read_at=None).update(read_at=timezone.now())
        return Response({"read": read})


# --- Without signing in ---------------------------------------------------------------------


class Feed(View):
    """The calendar of whoever has the secret."""

    def get(self, request: HttpRequest, secret: str) -> HttpResponse:
        found = ReminderPreferences.objects.select_related("user").filter(feed_secret=secret)
        preferences = found.filter(user__is_active=True).first()
        if preferences is None:
            return problem(404, "There is no such feed. Its secret may have been renewed.")
        response = HttpResponse(feed(preferences), content_type="text/calendar; charset=utf-8")
        response.headers["Cache-Control"] = "private, max-age=300"
        return response


# The token is the permission, and it comes with no cookie.
@method_decorator(csrf_exempt, name="dispatch")
class Link(View):
    """See reminders.links."""

    def get(self, request: HttpRequest, token: str) -> HttpResponse:
        return self.answer(request, token)

    def post(self, request: HttpRequest, token: str) -> HttpResponse:
        return self.answer(request, token)

    def answer(self, request: HttpRequest, token: str) -> HttpResponse:
        found = links.read(token)
        if found is None:
            return problem(404, "This link is not valid, or the reminder is gone.")
        page = {"title": found.reminder.note.title, "label": links.LABELS[found.action]}
        if request.method == "POST":
            page["answer"] = links.fulfil(found, timezone.now())
        return render(request, "reminders/link.html", page)
