from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from reminders.models import Notification
from reminders.notification_serializers import (
    NotificationQuery,
    NotificationSerializer,
    ReadCount,
)
from scribes.api.browsable import Resource
from scribes.api.pagination import NamedPagination


class NotificationPagination(NamedPagination):
    name = "notifications"


class OwnNotifications(generics.GenericAPIView[Notification]):
    queryset = Notification.objects.all()
    serializer_class: type[BaseSerializer[Any]] = NotificationSerializer

    def get_queryset(self) -> QuerySet[Notification]:
        return Notification.objects.for_user(self.request.user)  # type: ignore[arg-type]


@extend_schema(parameters=[NotificationQuery])
class NotificationList(OwnNotifications, generics.ListAPIView[Notification]):
    """Your in-app notifications, newest first; ?unread=true shows only unread ones."""

    pagination_class = NotificationPagination
    query_class = NotificationQuery

    def resources(self, data: Any) -> list[Resource]:
        read_all = {"Mark all as read": reverse("notification-read-all")}
        page = [_resource(notification) for notification in data["notifications"]]
        return [*page, Resource(f"{data['total']} in all", {}, read_all)]

    def filter_queryset(  # type: ignore[override]
        self, queryset: QuerySet[Notification]
    ) -> QuerySet[Notification]:
        query = NotificationQuery(data=self.request.query_params)
        query.is_valid(raise_exception=True)
        unread = query.validated_data["unread"]
        return queryset if unread is None else queryset.filter(read_at__isnull=unread)


def _resource(notification: dict[str, Any]) -> Resource:
    reminder = {"Reminder": reverse("reminder-detail", args=[notification["reminder_id"]])}
    read = {"Mark as read": reverse("notification-read", args=[notification["id"]])}
    return Resource(notification["title"], reminder, {} if notification["read_at"] else read)


class NotificationRead(OwnNotifications):
    """Mark a notification as read. Only the first time counts."""

    @extend_schema(request=None, responses=NotificationSerializer)
    def post(self, request: Request, pk: int) -> Response:
        notification = self.get_object()
        self.get_queryset().filter(pk=pk, read_at=None).update(read_at=timezone.now())
        notification.refresh_from_db()
        return Response(self.get_serializer(notification).data)


class NotificationReadAll(OwnNotifications):
    """Mark all notifications as read."""

    @extend_schema(request=None, responses=ReadCount)
    def post(self, request: Request) -> Response:
        read = self.get_queryset().filter(read_at=None).update(read_at=timezone.now())
        return Response({"read": read})
