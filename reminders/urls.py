from __future__ import annotations

from django.urls import path, re_path

from reminders import views

urlpatterns = [
    path("reminders", views.ReminderList.as_view(), name="reminder-list"),
    path("reminders/preview", views.ReminderPreview.as_view(), name="reminder-preview"),
    path("reminders/preferences", views.Preferences.as_view(), name="reminder-preferences"),
    path("reminders/preferences/renew", views.RenewSecret.as_view(), name="reminder-renew-secret"),
    # Narrow patterns: what matches is a text that PostgreSQL can look for.
    re_path(
        r"^reminders/feed/(?P<secret>[A-Za-z0-9_-]{43})\.ics$",
        views.Feed.as_view(),
        name="reminder-feed",
    ),
    re_path(
        r"^reminders/links/(?P<token>[A-Za-z0-9_:-]{1,300})$",
        views.Link.as_view(),
        name="reminder-link",
    ),
    path("reminders/<int:pk>", views.ReminderDetail.as_view(), name="reminder-detail"),
    path("reminders/<int:pk>/cancel", views.ReminderCancel.as_view(), name="reminder-cancel"),
    path("reminders/<int:pk>/snooze", views.ReminderSnooze.as_view(), name="reminder-snooze"),
    path(
        "reminders/<int:pk>/deliveries",
        views.ReminderDeliveries.as_view(),
        name="reminder-deliveries",
    ),
    path("notifications", views.NotificationList.as_view(), name="notification-list"),
    path(
        "notifications/read-all",
        views.NotificationReadAll.as_view(),
        name="notification-read-all",
    ),
    path("notifications/<int:pk>/read", views.NotificationRead.as_view(), name="notification-read"),
]
