"""The admin, used by an operator."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from celery_app import QUEUES
from jobs.models import BackgroundJob, ItemFailure, JobBatch
from jobs.runner import enqueue
from notes.embeddings.processes import EmbeddingProcess
from notes.models import Note, text_hash
from notes.pending_embeddings import PendingEmbedding
from reminders.probes import SWEEP
from scribes.models import Heartbeat, User
from tests.helpers.browser import SIZE, TakePicture, sign_in
from tests.helpers.counting import create_table
from tests.helpers.processes import Process, eventually
from tests.helpers.servers import Web

JOBS = "/admin/jobs/backgroundjob/"


@pytest.fixture
def admin(page: Page, web: Web, worker: Process, operator: User) -> Page:
    """A page of the signed-in operator."""
    create_table()
    sign_in(page, web, operator)
    return page


def row_of(page: Page, job: BackgroundJob) -> Locator:
    return page.locator("#result_list tr", has=page.locator(f"#job-{job.pk}"))


def write_notes(user: User, count: int) -> list[Note]:
    notes = [Note(user=user, title=f"Note {n}", content=f"Grace, part {n}") for n in range(count)]
    for note in notes:
        note.text_hash = text_hash(note)
    return Note.objects.bulk_create(notes)


def make_job(user: User, minutes_ago: int = 0, **fields) -> BackgroundJob:
    created = timezone.now() - timedelta(minutes=minutes_ago)
    times = {"created_at": created, "dispatched_at": created}
    defaults = {"user": user, "job_type": "embedding_regeneration", "started_at": created}
    return BackgroundJob.objects.create(**(times | defaults | fields))


def test_jobs_list_follows_a_repeated_job_without_reload(admin: Page, web: Web, operator: User):
    write_notes(operator, 23)
    earlier = make_job(operator, 9, status="completed", completed_at=timezone.now())
    admin.goto(web.url + JOBS)
    row_of(admin, earlier).get_by_role("button", name="Run again").click()
    expect(admin.get_by_text("1 job: started again")).to_be_visible()
    job = BackgroundJob.objects.get(retry_of=earlier)
    admin.evaluate("window.untouched = true")
    expect(row_of(admin, job)).to_contain_text("23/23 · 100 %")
    expect(row_of(admin, job)).to_contain_text("completed")
    expect(row_of(admin, job).get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")
    assert admin.evaluate("window.untouched"), "the page was reloaded"
    expect(admin.locator("#news")).to_contain_text("completed")
    # No job is active any more, so the page stops refreshing itself.
    expect(admin.locator("#live")).not_to_have_attribute("hx-trigger", re.compile(".*"))


def test_jobs_list_cancels_a_running_job(admin: Page, web: Web, operator: User):
    job, _ = enqueue(operator, "counting", {"count": 2000, "seconds": 0.05})
    admin.goto(web.url + JOBS)
    bar = row_of(admin, job).get_by_role("progressbar")
    at_first = bar.get_attribute("aria-valuenow")
    eventually(lambda: bar.get_attribute("aria-valuenow") not in (at_first, "0"))
    expect(row_of(admin, job)).to_contain_text(re.compile(r"about .* left"))
    row_of(admin, job).get_by_role("button", name="Cancel").click()
    expect(row_of(admin, job)).to_contain_text("cancelled")
    job.refresh_from_db()
    assert job.status == "cancelled"


def test_job_page_shows_failures_and_retries_them(admin: Page, web: Web, operator: User):
    job, _ = enqueue(operator, "counting", {"count": 12, "plans": {"3": "raise", "7": "memory"}})
    admin.goto(web.url + JOBS)
    expect(row_of(admin, job)).to_contain_text("2 failed")
    admin.get_by_role("link", name="Needs attention 1").click()
    admin.get_by_role("link", name=re.compile("counting")).click()
    expect(admin.get_by_text("ArithmeticError")).to_be_visible()
    expect(admin.get_by_text("The worker ran out of memory.")).to_be_visible()
    expect(admin.locator(".batch-done")).to_have_count(3)
    admin.get_by_role("button", name="Retry failed items").click()
    admin.locator("dl").get_by_role("link", name=re.compile("counting")).click()
    expect(admin.get_by_text("2 of 2 items done, 0 failed")).to_be_visible()
    admin.goto(f"{web.url}{JOBS}?tab=attention")
    expect(admin.get_by_role("link", name="Needs attention 0")).to_be_visible()


def test_jobs_list_keeps_selected_jobs_until_the_action(admin: Page, web: Web, operator: User):
    jobs = [
        make_job(operator, status="running", total_items=9, job_type=name)
        for name in ("one", "two", "three")
    ]
    admin.goto(web.url + JOBS)
    # When this shows, the list has been refreshed, with new checkboxes.
    BackgroundJob.objects.filter(pk=jobs[0].pk).update(processed_items=3)
    expect(row_of(admin, jobs[0])).to_contain_text("3/9")
    for job in jobs[:2]:
        row_of(admin, job).locator(".action-select").check()
    expect(admin.get_by_text("2 of 3 selected")).to_be_visible()
    admin.locator("select[name=action]").select_option("cancel_jobs")
    admin.locator("button[name=index]").click()
    expect(admin.get_by_text("2 jobs: cancelled")).to_be_visible()
    assert BackgroundJob.objects.get(status="running") == jobs[2]


def test_dashboard_shows_figures_and_stays_up_to_date(admin: Page, web: Web, operator: User):
    job, _ = enqueue(operator, "counting", {"count": 12, "plans": {"3": "raise"}})
    write_notes(operator, 4)
    PendingEmbedding.objects.add_all(Note.objects.order_by("pk")[:1])
    eventually(lambda: BackgroundJob.objects.filter(pk=job.pk, status="completed"))
    admin.goto(f"{web.url}/admin/")
    for panel, figure, value in (
        ("Queues", "control", "0"),
        ("Processes", "worker processes alive", "1"),
        ("Jobs", "with failures", "1"),
        ("Embeddings", "coverage", "75.0 %"),
        ("Reminders", "due, waiting for the sweep", "0"),
    ):
        shown = admin.get_by_role("region", name=panel).locator(f"dt:text-is('{figure}') + dd")
        expect(shown).to_have_text(value)
    # Beat does not run, and the page says so.
    expect(admin.locator("#faults")).to_contain_text("Beat has not looked at its schedule")
    # It refreshes itself.
    make_job(operator, status="failed", completed_at=timezone.now())
    jobs = admin.get_by_role("region", name="Jobs")
    expect(jobs.locator("dt:text-is('with failures') + dd")).to_have_text("2")
    admin.context.set_offline(True)
    expect(admin.get_by_text("This page may be out of date.")).to_be_visible()
    # After signing out, the page shows the sign-in form and no figures.
    admin.context.clear_cookies()
    admin.context.set_offline(False)
    admin.wait_for_url("**/admin/login/**")


# --- How it looks ----------------------------------------------------------------------------


@pytest.fixture
def busy_day(database: None) -> BackgroundJob:
    """A running job, after a day with many others."""
    people = [
        User.objects.create_user(f"{name}@example.com") for name in ("anna", "bertil", "cecilia")
    ]
    now = timezone.now()
    for n in range(1, 60):
        fields: dict[str, Any] = {
            "total_items": 40 + n,
            "processed_items": 40 + n,
            "status": "completed",
        }
        if n % 9 == 4:
            fields |= {"processed_items": 38 + n, "failed_items": 2}
        if n % 14 == 8:
            fields |= {"status": "failed", "processed_items": 20}
        ended = now - timedelta(minutes=23 * n + n * n % 50)
        started = ended - timedelta(seconds=30 + n)
        minutes_ago = 23 * n + n * n % 50 + 1
        make_job(people[n % 3], minutes_ago, started_at=started, completed_at=ended, **fields)
    make_job(people[1], status="queued", started_at=None)
    write_notes(people[2], 400)
    PendingEmbedding.objects.add_all(Note.objects.filter(user=people[2])[:3])
    EmbeddingProcess.objects.create(
        process="scribes-1:4712",
        model="all-MiniLM-L6-v2",
        engine="openvino",
        precision="bf16",
        threads=2,
        passages_per_second=112.4,
        at=Now(),
    )
    for name in ("beat", SWEEP, *(f"queue {queue}" for queue in QUEUES)):
        Heartbeat.objects.create(name=name, process="scribes-1:4711", at=Now())
    return _running_job(people[0], now)


def _running_job(user: User, now) -> BackgroundJob:
    job = make_job(user, status="running", total_items=200, processed_items=132, failed_items=2)
    started = now - timedelta(seconds=81)
    BackgroundJob.objects.filter(pk=job.pk).update(
        created_at=started - timedelta(seconds=0.4), started_at=started
    )
    JobBatch.append(job, [range(n, n + 5) for n in range(0, 200, 5)])
    job.batches.filter(number__lte=27).update(status="done", attempts=1)
    job.batches.filter(number__in=(28, 29)).update(status="leased", attempts=1, claimed_by="x")
    job.batches.filter(number=30).update(attempts=2, error="The process that worked on it died.")
    ItemFailure.objects.create(job=job, item_id=17, error_class="MemoryError", message="")
    ItemFailure.objects.create(job=job, item_id=61, error_class="ValueError", message="no text")
    return job


def test_pages_fit_their_window_in_light_and_dark(
    page: Page, web: Web, operator: User, busy_day: BackgroundJob, take_picture: TakePicture
):
    sign_in(page, web, operator)
    pages = {
        "admin-jobs": JOBS,
        "admin-job": f"{JOBS}{busy_day.pk}/change/",
        "admin-dashboard": "/admin/",
    }
    for name, path in pages.items():
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(SIZE)
        page.goto(web.url + path)
        take_picture(page, name)
        list_end = "document.querySelector('#result_list')?.getBoundingClientRect().right ?? 0"
        # The page has a margin of 16 pixels.
        assert page.evaluate(list_end) <= SIZE["width"] - 16, f"the list of {name} is cut off"
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 400, "height": 800})
        page.reload()
        expect(page.locator("html.dark #live")).to_be_visible()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 400, f"{name} is {width} wide"
