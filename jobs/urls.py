from __future__ import annotations

from django.urls import path

from jobs import views

urlpatterns = [
    path("jobs", views.JobList.as_view(), name="job-list"),
    path("jobs/<uuid:job_id>", views.JobDetail.as_view(), name="job-detail"),
    path("jobs/<uuid:job_id>/status", views.JobStatus.as_view(), name="job-status"),
]
