"""Jobs in the admin: which jobs run, which need attention, and what an operator can do with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import F, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from jobs.models import BackgroundJob, ItemFailure, needs_attention
from jobs.operations import OPERATIONS, OperationRefused, available_operations
from jobs.presentation import (
    MAX_GRID_BATCHES,
    batch_counts,
    batch_grid,
    describe,
    failure_causes,
    failure_hint,
    item_summary,
    progress_text,
)
from scribes.admin import ReadOnlyAdmin
from scribes.presentation import badge, humanize_duration, relative_time, short_id

REFRESH_SECONDS = 2
# Longer JSON is cut: the parameters of a retry may list thousands of ids.
MAX_JSON_CHARACTERS = 500


class Tab(admin.SimpleListFilter):
    """The list's tabs, each with the number of jobs that match the other filters."""

    title = "tab"
    parameter_name = "tab"
    conditions: ClassVar[dict[str, Callable[[], Q]]] = {
        "active": lambda: Q(status__in=BackgroundJob.ACTIVE),
        "attention": needs_attention,
        "done": lambda: Q(status__in=BackgroundJob.TERMINAL),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Active"), ("attention", "Needs attention"), ("done", "Done")]

    def queryset(
        self, request: HttpRequest, jobs: QuerySet[BackgroundJob]
    ) -> QuerySet[BackgroundJob]:
        condition = self.conditions.get(self.value() or "")
        return jobs.filter(condition()) if condition else jobs

    def with_counts(self, changes: ChangeList, request: HttpRequest) -> list[dict[str, Any]]:
        jobs = changes.get_queryset(request, exclude_parameters=self.expected_parameters())
        numbers = [jobs.order_by().count()]
        numbers += [
            jobs.order_by().filter(condition()).count() for condition in self.conditions.values()
        ]
        choices = self.choices(changes)
        return [{**choice, "count": n} for choice, n in zip(choices, numbers, strict=True)]


@admin.register(BackgroundJob)
class BackgroundJobAdmin(ReadOnlyAdmin[BackgroundJob]):
    list_display = ("job", "state", "progress", "user", "created", "took")
    list_filter = (Tab, "status", "job_type", "created_at")
    list_per_page = 50
    search_fields = ("job_id", "job_type", "user__email")
    search_help_text = "Id, type, or e-mail address"
    list_select_related = ("user",)
    ordering = ("-created_at",)
    actions = ("cancel_jobs", "retry_jobs", "repeat_jobs")

    class Media:
        js = ("scribes/live.js",)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Operating a job needs the permission to change jobs, although nobody can edit one."""
        return request.user.has_perm("jobs.change_backgroundjob")

    # --- The list ---

    def get_list_display(self, request: HttpRequest) -> tuple[Any, ...]:
        can_operate = self.has_operate_permission(request)
        return (*self.list_display, "buttons") if can_operate else self.list_display

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        context = getattr(response, "context_data", None) or {}
        if changes := context.get("cl"):
            [tab] = [spec for spec in changes.filter_specs if isinstance(spec, Tab)]
            changes.filter_specs.remove(tab)  # the template shows it above the list
            tabs = tab.with_counts(changes, request)
            has_active = any(not job.is_terminal for job in changes.result_list)
            context |= {"tabs": tabs, "live": REFRESH_SECONDS if has_active else None}
        return response

    @admin.display(description="job", ordering="job_type")
    def job(self, job: BackgroundJob) -> SafeString:
        return _render("job_name", job=job, title=str(job))

    @admin.display(description="status", ordering="status")
    def state(self, job: BackgroundJob) -> SafeString:
        return badge(job.status)

    @admin.display(description="progress", ordering="progress_percent")
    def progress(self, job: BackgroundJob) -> SafeString:
        return progress_bar(job)

    @admin.display(description="created", ordering="created_at")
    def created(self, job: BackgroundJob) -> SafeString | str:
        return relative_time(job.created_at)

    @admin.display(description="duration", ordering=F("completed_at") - F("started_at"))
    def took(self, job: BackgroundJob) -> SafeString:
        """How long the job ran, and how long it waited in the queue before."""
        now = timezone.now()
        ended = job.completed_at or now
        return _render(
            "duration",
            waited=humanize_duration((job.started_at or ended) - job.created_at),
            took=humanize_duration(ended - job.started_at) if job.started_at else "",
        )

    @admin.display(description="")
    def buttons(self, job: BackgroundJob) -> SafeString:
        return operation_buttons(job)

    # --- One job ---

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        job = self.get_object(request, unquote(object_id))
        if job is not None:
            extra_context = (extra_context or {}) | self._page(request, job)
        return super().change_view(request, object_id, form_url, extra_context)

    def _page(self, request: HttpRequest, job: BackgroundJob) -> dict[str, Any]:
        counts = batch_counts(job)
        return {
            "title": str(job),
            "subtitle": None,
            "job": job,
            "badge": badge(job.status),
            "progress": progress_bar(job),
            "description": describe(job),
            "facts": facts(job),
            "batches": batch_grid(job),
            "batch_counts": counts,
            "more_batches": max(0, sum(number for number, _ in counts) - MAX_GRID_BATCHES),
            "causes": failure_causes(job),
            "failures_url": failures_url(job),
            "buttons": operation_buttons(job) if self.has_operate_permission(request) else "",
            "flower": settings.FLOWER_URL,
            "live": None if job.is_terminal else REFRESH_SECONDS,
        }

    # --- Operations ---

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.operate))
        operate = path("<uuid:job_id>/operate/<slug:operation>/", view, name="jobs_operate")
        return [operate, *super().get_urls()]

    def operate(self, request: HttpRequest, job_id: str, operation: str) -> HttpResponse:
        """Perform one operation on one job: the target of its buttons."""
        if not self.has_operate_permission(request):
            raise PermissionDenied
        if operation not in OPERATIONS:
            raise Http404
        self._operate(request, [get_object_or_404(BackgroundJob, pk=job_id)], operation)
        back = request.headers.get("Referer", "")
        if not url_has_allowed_host_and_scheme(back, {request.get_host()}):
            back = reverse("admin:jobs_backgroundjob_changelist")
        return HttpResponseRedirect(back)

    def _operate(self, request: HttpRequest, jobs: Iterable[BackgroundJob], name: str) -> None:
        done: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        for job in jobs:
            try:
                outcome = OPERATIONS[name].perform(job)
            except OperationRefused as reason:
                refused[str(reason)] += 1
            else:
                done[outcome] += 1
                self.log_change(request, job, outcome)
        for outcomes, level in ((done, messages.SUCCESS), (refused, messages.WARNING)):
            for outcome, number in outcomes.items():
                text = f"{number} job: {outcome}" if number == 1 else f"{number} jobs: {outcome}"
                self.message_user(request, text, level)

    @admin.action(description=OPERATIONS["cancel"].label, permissions=["operate"])
    def cancel_jobs(self, request: HttpRequest, jobs: QuerySet[BackgroundJob]) -> None:
        self._operate(request, jobs, "cancel")

    @admin.action(description=OPERATIONS["retry"].label, permissions=["operate"])
    def retry_jobs(self, request: HttpRequest, jobs: QuerySet[BackgroundJob]) -> None:
        self._operate(request, jobs, "retry")

    @admin.action(description=OPERATIONS["repeat"].label, permissions=["operate"])
    def repeat_jobs(self, request: HttpRequest, jobs: QuerySet[BackgroundJob]) -> None:
        self._operate(request, jobs, "repeat")


@admin.register(ItemFailure)
class ItemFailureAdmin(ReadOnlyAdmin[ItemFailure]):
    list_display = ("item_id", "error_class", "message", "hint", "of_job")
    list_filter = ("error_class",)
    search_fields = ("=item_id", "error_class", "message", "job__user__email")
    list_select_related = ("job",)
    ordering = ("job", "item_id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ItemFailure]:
        """Without the job's parameters: those of a retry may list thousands of ids, in each row."""
        return super().get_queryset(request).defer("job__parameters", "job__result_data")

    @admin.display(description="what to do")
    def hint(self, failure: ItemFailure) -> str:
        return failure_hint(failure)

    @admin.display(description="job")
    def of_job(self, failure: ItemFailure) -> SafeString:
        return job_link(failure.job)


# --- Parts of pages -------------------------------------------------------------------------


def _render(template: str, **context: Any) -> SafeString:
    return render_to_string(f"admin/jobs/backgroundjob/{template}.html", context)


def progress_bar(job: BackgroundJob) -> SafeString:
    """A bar with its text: 134/200 · 67 % · about 40 s left · 2 failed."""
    parts = progress_text(job, timezone.now())
    url = failures_url(job)
    return _render("progress", job=job, title=str(job), parts=parts, failures_url=url)


def operation_buttons(job: BackgroundJob) -> SafeString:
    """The buttons of the available operations. They submit the form that they stand in."""
    buttons = [
        {"name": name, "label": operation.label, "url": _operate_url(job, name)}
        for name, operation in available_operations(job)
    ]
    return _render("buttons", job=job, short_id=short_id(job.pk), buttons=buttons)


def _operate_url(job: BackgroundJob, name: str) -> str:
    return reverse("admin:jobs_operate", args=[job.pk, name])


def failures_url(job: BackgroundJob) -> str:
    return f"{reverse('admin:jobs_itemfailure_changelist')}?job__exact={job.pk}"


def job_link(job: BackgroundJob) -> SafeString:
    url = reverse("admin:jobs_backgroundjob_change", args=[job.pk])
    return _render("job_link", url=url, title=str(job), badge=badge(job.status))


def facts(job: BackgroundJob) -> Iterator[tuple[str, Any]]:
    """(label, value) pairs for a job's page."""
    yield "Id", _render("code", text=job.pk)
    yield "Owner", job.user
    yield "Created", relative_time(job.created_at)
    yield "Started", relative_time(job.started_at)
    yield "Ended", relative_time(job.completed_at)
    yield "Worked on for", humanize_duration(job.work_time)
    yield "Items", item_summary(job)
    if job.retry_of:
        yield "Repeats", job_link(job.retry_of)
    for retry in job.retries.all():
        yield "Repeated by", job_link(retry)
    if job.parameters:
        yield "Parameters", _json(job.parameters)
    if job.result_data:
        yield "Result", _json(job.result_data)
    if job.request_id:
        yield "Request", _render("code", text=job.request_id, help="Search the logs for this id.")


def _json(value: Any) -> SafeString:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    cut = f"{text[:MAX_JSON_CHARACTERS]} …"
    return _render("code", text=text if len(text) < MAX_JSON_CHARACTERS else cut)
