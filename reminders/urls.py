from __future__ import annotations

from django.urls import path, re_path

from reminders import notification_views, preference_views, public_views, views

urlpatterns = [
    path("reminders", views.ReminderList.as_view(), name="reminder-list"),
    path("reminders/preview", views.ReminderPreview.as_view(), name="reminder-preview"),
    path(
        "reminders/preferences", preference_views.Preferences.as_view(), name="reminder-preferences"
    ),
    path(
        "reminders/preferences/rotate-secret",
        preference_views.RotateSecret.as_view(),
        name="reminder-rotate-secret",
    ),
    # Narrow patterns, so that only text that PostgreSQL can store reaches a query.
    re_path(
        r"^reminders/feed/(?P<secret>[A-Za-z0-9_-]{43})\.ics$",
        public_views.CalendarFeed.as_view(),
        name="reminder-feed",
    ),
    re_path(
        r"^reminders/links/(?P<token>[A-Za-z0-9_:-]{1,300})$",
        public_views.SignedLink.as_view(),
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
    path("notifications", notification_views.NotificationList.as_view(), name="notification-list"),
    path(
        "notifications/read-all",
        notification_views.NotificationReadAll.as_view(),
        name="notification-read-all",
    ),
    path(
        "notifications/<int:pk>/read",
        notification_views.NotificationRead.as_view(),
        name="notification-read",
    ),
]
