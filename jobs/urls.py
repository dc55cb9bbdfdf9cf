from __future__ import annotations

from django.urls import path

from jobs import views

urlpatterns = [
    path("jobs", views.JobList.as_view(), name="job-list"),
    path("jobs/<uuid:job_id>", views.JobDetail.as_view(), name="job-detail"),
    path("jobs/<uuid:job_id>/status", views.JobStatus.as_view(), name="job-status"),
    path("jobs/<uuid:job_id>/cancel", views.JobCancel.as_view(), name="job-cancel"),
    path("jobs/<uuid:job_id>/retry", views.JobRetry.as_view(), name="job-retry"),
    path("jobs/<uuid:job_id>/failures", views.JobFailures.as_view(), name="job-failures"),
]
