"""Jobs in the admin: what goes on, what needs attention, and what an operator can do about it."""

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
from django.db.models import Count, F, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from jobs.estimate import eta_seconds
from jobs.models import BackgroundJob, ItemFailure, JobBatch, needs_attention
from jobs.operating import OPERATIONS, Refused, offered
from jobs.serializers import sentence
from jobs.views import causes
from scribes.admin import ReadOnlyAdmin
from scribes.display import badge, moment, spoken

REFRESH_SECONDS = 2
# Squares on a job's page: more of them say less.
MAX_SQUARES = 400


class Tab(admin.SimpleListFilter):
    """The list's tabs, each with how many jobs it holds under the other filters."""

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
        """Who may change jobs may cancel and repeat them; edit them nobody may."""
        return request.user.has_perm("jobs.change_backgroundjob")

    # --- The list ---

    def get_list_display(self, request: HttpRequest) -> tuple[Any, ...]:
        may = self.has_operate_permission(request)
        return (*self.list_display, "buttons") if may else self.list_display

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        context = getattr(response, "context_data", None) or {}
        if changes := context.get("cl"):
            [tab] = [spec for spec in changes.filter_specs if isinstance(spec, Tab)]
            changes.filter_specs.remove(tab)  # it stands above the list
            tabs = tab.with_counts(changes, request)
            is_moving = any(not job.is_terminal for job in changes.result_list)
            context |= {"tabs": tabs, "live": REFRESH_SECONDS if is_moving else None}
        return response

    @admin.display(description="job", ordering="job_type")
    def job(self, job: BackgroundJob) -> SafeString:
        # The row that a screen reader hears of when its state changes.
        return format_html(
            '<span id="job-{}" data-state="{}" data-name="{} {}">{}</span> <code class="quiet">{}</code>',
            *(job.pk, job.status, title(job), short_id(job), title(job), short_id(job)),
        )

    @admin.display(description="state", ordering="status")
    def state(self, job: BackgroundJob) -> SafeString:
        return badge(job.status)

    @admin.display(description="progress", ordering="progress_percent")
    def progress(self, job: BackgroundJob) -> SafeString:
        return progress(job)

    @admin.display(description="created", ordering="created_at")
    def created(self, job: BackgroundJob) -> SafeString | str:
        return moment(job.created_at)

    @admin.display(description="took", ordering=F("completed_at") - F("started_at"))
    def took(self, job: BackgroundJob) -> SafeString:
        """How long it waited in the queue, and then ran."""
        now = timezone.now()
        waited = spoken((job.started_at or job.completed_at or now) - job.created_at)
        if job.started_at is None:
            return format_html('<span class="nowrap">waited {}</span>', waited)
        took = spoken((job.completed_at or now) - job.started_at)
        return format_html(
            '<span class="nowrap">{}</span><br><span class="nowrap quiet">waited {}</span>',
            *(took, waited),
        )

    @admin.display(description="")
    def buttons(self, job: BackgroundJob) -> SafeString:
        return format_html('<div class="buttons">{}</div>', buttons(job))

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
        batch_counts = dict(job.batches.order_by().values_list("status").annotate(Count("pk")))
        return {
            "title": f"{title(job)} {short_id(job)}",
            "subtitle": None,
            "job": job,
            "badge": badge(job.status),
            "progress": progress(job),
            "sentence": sentence(job),
            "facts": facts(job),
            "batches": squares(job),
            "batch_counts": [(n, WORDS[status]) for status, n in batch_counts.items()],
            "more_batches": max(0, sum(batch_counts.values()) - MAX_SQUARES),
            "causes": causes(job.failures.all()),
            "failures_url": failures_url(job),
            "buttons": buttons(job) if self.has_operate_permission(request) else "",
            "flower": settings.FLOWER_URL,
            "live": None if job.is_terminal else REFRESH_SECONDS,
        }

    # --- What an operator does ---

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.operate))
        operate = path("<uuid:job_id>/operate/<slug:operation>/", view, name="jobs_operate")
        return [operate, *super().get_urls()]

    def operate(self, request: HttpRequest, job_id: str, operation: str) -> HttpResponse:
        """One operation on one job, as its button asks for it."""
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
                said = OPERATIONS[name].perform(job)
            except Refused as reason:
                refused[str(reason)] += 1
            else:
                done[said] += 1
                self.log_change(request, job, said)
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


# --- How a job is shown ---------------------------------------------------------------------


def title(job: BackgroundJob) -> str:
    return job.job_type.replace("_", " ").capitalize()


def short_id(job: BackgroundJob) -> str:
    return str(job.pk)[:8]


def progress(job: BackgroundJob) -> SafeString:
    """A bar, and the same in words: 134/200 · 67 % · about 40 s left · 2 failed."""
    return format_html(
        '<div class="job-progress"><div class="bar bar-{}" role="progressbar" aria-label="{}"'
        ' aria-valuemin="0" aria-valuemax="100" aria-valuenow="{}">'
        '<span id="bar-{}" style="width: {}%"></span></div><span class="quiet">{}</span></div>',
        *(job.status, f"Progress of {title(job)} {short_id(job)}", job.progress_percent),
        *(job.pk, job.progress_percent, format_html_join(" · ", "{}", _progress(job))),
    )


def _progress(job: BackgroundJob) -> Iterator[tuple[SafeString | str]]:
    if job.status == BackgroundJob.Status.QUEUED:
        yield ("waits for a worker",)
        return
    yield (f"{job.done_items}/{job.total_items}",)
    yield (f"{job.progress_percent} %",)
    if (left := eta_seconds(job, timezone.now())) is not None:
        yield (f"about {spoken(left)} left",)
    if job.failed_items:
        text = '<a class="has-failed" href="{}">{} failed</a>'
        yield (format_html(text, failures_url(job), job.failed_items),)


def buttons(job: BackgroundJob) -> SafeString:
    """They send the form they stand in."""
    return format_html_join(
        " ",
        '<button id="{}-{}" aria-label="{} {}" formaction="{}" formmethod="post">{}</button>',
        (
            (name, job.pk, operation.label, short_id(job), _operate_url(job, name), operation.label)
            for name, operation in offered(job)
        ),
    )


def _operate_url(job: BackgroundJob, name: str) -> str:
    return reverse("admin:jobs_operate", args=[job.pk, name])


def failures_url(job: BackgroundJob) -> str:
    return f"{reverse('admin:jobs_itemfailure_changelist')}?job__exact={job.pk}"


def facts(job: BackgroundJob) -> Iterator[tuple[str, Any]]:
    yield "Id", format_html("<code>{}</code>", job.pk)
    yield "Owner", job.user
    yield "Created", moment(job.created_at)
    yield "Started", moment(job.started_at)
    yield "Ended", moment(job.completed_at)
    yield "Must end", moment(job.deadline_at)
    yield (
        "Items",
        f"{job.processed_items} processed, {job.failed_items} failed, {job.skipped_items} skipped",
    )
    if job.retry_of:
        yield "Repeats", job_link(job.retry_of)
    for retry in job.retries.all():
        yield "Repeated by", job_link(retry)
    if job.parameters:
        yield "Parameters", shown_json(job.parameters)
    if job.result_data:
        yield "Result", shown_json(job.result_data)
    if job.request_id:
        yield (
            "Request",
            format_html('<code title="Look for it in the logs">{}</code>', job.request_id),
        )


def job_link(job: BackgroundJob) -> SafeString:
    url = reverse("admin:jobs_backgroundjob_change", args=[job.pk])
    return format_html(
        '<a href="{}">{} {}</a> {}', url, title(job), short_id(job), badge(job.status)
    )


def shown_json(value: Any) -> SafeString:
    """Long lists of ids are cut."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return format_html("<code>{}</code>", text if len(text) < 500 else f"{text[:500]} …")


SYMBOLS = {"pending": "·", "leased": "▸", "done": "✓", "dead": "✕", "retried": "↻"}
# For people: a lease is how the program sees it.
WORDS = {"pending": "waiting", "leased": "in work", "done": "done", "dead": "given up"}


def squares(job: BackgroundJob) -> Iterator[dict[str, str]]:
    """The batches in their order: what a square shows, and what it says."""
    batches = job.batches.annotate(items=F("item_ids__len")).defer("item_ids")
    for batch in batches.order_by("number")[:MAX_SQUARES]:
        retried = batch.attempts > 1 and batch.status in JobBatch.ACTIVE
        kind = "retried" if retried else batch.status
        yield {
            "kind": kind,
            "symbol": SYMBOLS[kind],
            "text": _about(batch),
            "url": f"{settings.FLOWER_URL}/task/{batch.claimed_by}" if batch.claimed_by else "",
        }


def _about(batch: JobBatch) -> str:
    text = f"Batch {batch.number}: {WORDS[batch.status]}, {batch.items} items"  # type: ignore[attr-defined]
    if batch.attempts > 1:
        text += f", attempt {batch.attempts}"
    return f"{text}. {batch.error}" if batch.error else text


# --- Failures -------------------------------------------------------------------------------


@admin.register(ItemFailure)
class ItemFailureAdmin(ReadOnlyAdmin[ItemFailure]):
    list_display = ("item_id", "error_class", "message", "hint", "of_job")
    list_filter = ("error_class",)
    search_fields = ("=item_id", "error_class", "message", "job__user__email")
    list_select_related = ("job",)
    ordering = ("job", "item_id")

    @admin.display(description="job")
    def of_job(self, failure: ItemFailure) -> SafeString:
        return job_link(failure.job)
