"""Every route of the project."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.permissions import AllowAny

from scribes.accounts.views import Me
from scribes.api.root import Root
from scribes.monitoring import dashboard, metrics_endpoint

admin.site.site_header = admin.site.site_title = "Scribes"
admin.site.index_title = "Dashboard"
admin.site.index_template = "scribes/dashboard.html"

urlpatterns = [
    path("", Root.as_view(), name="root"),
    path("", include("notes.urls")),
    path("", include("jobs.urls")),
    path("", include("reminders.urls")),
    path("me", Me.as_view(), name="me"),
    # For clients with a bearer token.
    path("auth/", include("scribes.accounts.urls")),
    # Sign-in and sign-out in a browser, for the browsable API.
    path("", include("rest_framework.urls")),
    path("schema", SpectacularAPIView.as_view(permission_classes=[AllowAny]), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(permission_classes=[AllowAny]), name="docs"),
    path("admin/", admin.site.admin_view(dashboard.page)),
    path("admin/", admin.site.urls),
    path("health/", include("scribes.monitoring.health")),
    path("metrics", metrics_endpoint.page, name="metrics"),
]

handler400 = "scribes.api.errors.bad_request"
handler404 = "scribes.api.errors.not_found"
handler500 = "scribes.api.errors.server_error"
