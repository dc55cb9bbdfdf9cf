"""The admin's pages of jobs, over HTTP: who may do what, what they show, and how many queries they take."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from jobs.models import BackgroundJob, ItemFailure, JobBatch, JobOutcomes
from jobs.presentation import MAX_GRID_BATCHES
from jobs.reconciler import prune
from scribes.models import User
from tests.helpers.counting import Counting
from tests.helpers.factories import make_job
from tests.helpers.jobs import claim, start_counting

LIST = "/admin/jobs/backgroundjob/"


def staff(*permissions: str) -> Client:
    user = User.objects.create_user("charlie@example.com", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def page_of(job: BackgroundJob) -> str:
    return f"{LIST}{job.pk}/change/"


def get(client: Client, url: str) -> str:
    return client.get(url).content.decode()


def operate(client: Client, job: BackgroundJob, operation: str, **headers: str):
    return client.post(f"{LIST}{job.pk}/operate/{operation}/", headers=headers)


def act(client: Client, action: str, jobs: list[BackgroundJob]) -> str:
    """The list's page after an action on these jobs."""
    form = {"action": action, "_selected_action": [str(job.pk) for job in jobs]}
    return client.post(LIST, form, follow=True).content.decode()


# --- Permissions ----------------------------------------------------------------------------


def test_view_permission_shows_no_buttons_and_cannot_operate(alice: User):
    job = start_counting(alice, 5)
    client = staff("view_backgroundjob")
    for page in (LIST, page_of(job)):
        html = get(client, page)
        assert "running" in html
        assert "/operate/" not in html
        assert "cancel_jobs" not in html
    assert operate(client, job, "cancel").status_code == 403
    act(client, "cancel_jobs", [job])
    job.refresh_from_db()
    assert job.status == "running"


def test_change_permission_operates_but_cannot_edit(alice: User):
    job = start_counting(alice, 5)
    client = staff("change_backgroundjob")
    assert "/operate/cancel/" in get(client, LIST)
    assert client.post(page_of(job), {"status": "completed"}).status_code == 403
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}{job.pk}/delete/", {"post": "yes"}).status_code == 403
    assert operate(client, job, "cancel").status_code == 302
    job.refresh_from_db()
    assert job.status == "cancelled"


@pytest.mark.parametrize("permissions", [(), ("view_note",)])
def test_pages_are_403_without_permission(alice: User, permissions: tuple[str, ...]):
    job = start_counting(alice, 5)
    client = staff(*permissions)
    for page in (LIST, page_of(job), "/admin/jobs/itemfailure/"):
        assert client.get(page).status_code == 403
    assert operate(client, job, "cancel").status_code == 403


def test_operate_needs_a_sign_in_and_a_post_with_csrf_token(alice: User, admin_user: User):
    job = start_counting(alice, 5)
    assert "/login/" in operate(Client(), job, "cancel").headers["Location"]
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(admin_user)
    assert operate(careful, job, "cancel").status_code == 403
    assert careful.get(f"{LIST}{job.pk}/operate/cancel/").status_code == 405
    job.refresh_from_db()
    assert job.status == "running"


# --- Operations -----------------------------------------------------------------------------


def test_operate_retries_repeats_and_cancels(admin_client: Client, with_failures: BackgroundJob):
    failed = with_failures
    response = operate(admin_client, failed, "retry", referer=f"http://testserver{LIST}?q=a")
    assert response.headers["Location"] == f"http://testserver{LIST}?q=a"
    retry = BackgroundJob.objects.get(retry_of=failed)
    assert retry.parameters["item_ids"] == [3, 13, 23]
    operate(admin_client, retry, "cancel")
    response = operate(admin_client, failed, "repeat", referer="https://elsewhere.example/")
    assert response.headers["Location"] == LIST
    again = BackgroundJob.objects.exclude(pk=retry.pk).get(retry_of=failed)
    assert (again.parameters, again.user) == (failed.parameters, failed.user)
    page = get(admin_client, LIST)
    assert page.count("1 job: started again") == 2
    assert page.count("1 job: cancelled") == 1
    history = get(admin_client, f"{LIST}{failed.pk}/history/")
    assert history.count("started again") == 2


def test_operate_is_404_for_unknown_operations_and_jobs(admin_client: Client, alice: User):
    job = start_counting(alice, 5)
    assert operate(admin_client, job, "explode").status_code == 404
    job.delete()
    job.pk = "00000000-0000-0000-0000-000000000000"
    assert operate(admin_client, job, "cancel").status_code == 404


def test_cancel_action_reports_each_outcome(admin_client: Client, alice: User, bob: User):
    jobs = [start_counting(alice, 5), start_counting(bob, 5), make_job(alice, status="completed")]
    page = act(admin_client, "cancel_jobs", jobs)
    assert "2 jobs: cancelled" in page
    assert "1 job: it has already ended" in page
    assert not BackgroundJob.objects.active().exists()


def test_retry_action_reports_each_outcome(
    admin_client: Client, with_failures: BackgroundJob, bob: User
):
    jobs = [with_failures, *(make_job(bob, status="cancelled") for _ in range(3))]
    page = act(admin_client, "retry_jobs", jobs)
    assert "1 job: started again" in page
    assert "3 jobs: nothing failed in it" in page


def test_repeat_action_reports_each_outcome(admin_client: Client, bob: User):
    jobs = [make_job(bob, status="failed"), make_job(bob, status="failed")]
    page = act(admin_client, "repeat_jobs", jobs)
    assert "1 job: started again" in page
    assert "1 job: another job of the same owner is active" in page


# --- The list -------------------------------------------------------------------------------


def counts_of_tabs(html: str) -> list[int]:
    tabs = html.split('<ul class="tabs"')[1].split("</ul>")[0]
    return [int(part.split("</b>")[0]) for part in tabs.split("<b>")[1:]]


def test_tabs_count_the_jobs_that_match_the_other_filters(
    admin_client: Client, alice: User, bob: User
):
    retried = make_job(alice, status="failed")
    for fields in (
        {"status": "running", "job_type": "counting"},
        {"status": "queued", "job_type": "embedding_regeneration"},
        {"status": "queued", "job_type": "embedding_update", "minutes_ago": 30},
        {"status": "completed", "retry_of": retried},
        {"status": "completed", "total_items": 9, "processed_items": 7, "failed_items": 2},
        {"status": "failed"},
    ):
        make_job(alice, **fields)
    make_job(bob, status="cancelled")
    html = get(admin_client, LIST)
    assert counts_of_tabs(html) == [8, 3, 3, 5]
    html = get(admin_client, f"{LIST}?tab=attention")
    assert html.count('data-state="') == 3
    assert counts_of_tabs(html) == [8, 3, 3, 5]
    html = get(admin_client, f"{LIST}?q=bob@&tab=done")
    assert counts_of_tabs(html) == [1, 0, 0, 1]
    assert admin_client.get(f"{LIST}?tab=nonsense").status_code in (200, 302)


def test_list_shows_the_progress_of_a_job(admin_client: Client, alice: User):
    started = timezone.now() - timedelta(seconds=20)
    make_job(
        alice,
        status="running",
        minutes_ago=1,
        started_at=started,
        total_items=200,
        processed_items=132,
        failed_items=2,
    )
    html = get(admin_client, LIST)
    assert 'role="progressbar"' in html
    assert 'aria-valuenow="67"' in html
    assert "134/200 · 67 % · about 10 s left" in html
    assert "2 failed" in html
    assert 'hx-trigger="every 2s' in html


def test_list_is_not_refreshed_without_active_jobs(admin_client: Client, alice: User):
    make_job(alice, status="completed")
    assert "every 2s" not in get(admin_client, LIST)


def test_list_of_100_jobs_takes_few_queries(admin_client: Client, django_assert_max_num_queries):
    for number in range(100):
        user = User.objects.create_user(f"person{number}@example.com")
        make_job(user, status="completed", total_items=9, processed_items=7, failed_items=2)
    with django_assert_max_num_queries(12):
        assert admin_client.get(LIST).status_code == 200


# --- The page of a job ----------------------------------------------------------------------


def test_job_page_groups_failures_by_cause(admin_client: Client, with_failures: BackgroundJob):
    html = get(admin_client, page_of(with_failures))
    assert f"Counting {str(with_failures.pk)[:8]}" in html
    assert "The job is complete: 30 of 30 numbers done, 3 failed." in html
    assert "Batch 1: done, 30 items" in html
    assert "ArithmeticError" in html
    assert Counting.hints["ArithmeticError"] in html
    assert "The worker ran out of memory." in html
    assert "Open in Flower" in html
    failures = f"/admin/jobs/itemfailure/?job__exact={with_failures.pk}"
    assert failures in html
    listed = get(admin_client, failures)
    assert "13 brings bad luck" in listed
    assert Counting.hints["ArithmeticError"] in listed


def test_job_page_describes_batches_in_each_state(admin_client: Client, alice: User, settings):
    settings.JOB_BATCH_SIZE = 1
    job = start_counting(alice, 5)
    claim(job, number=1).finish()
    claim(job, number=2).mark_dead()
    claim(job, number=3).release("it raised")
    claim(job, number=3)
    claim(job, "message of batch 4", number=4)
    html = get(admin_client, page_of(job))
    for text in (
        "Batch 1: done, 1 item",
        "Batch 2: given up, 1 item",
        "Batch 3: in progress, 1 item, attempt 2. it raised",
        "Batch 4: in progress, 1 item",
        "Batch 5: waiting, 1 item",
    ):
        assert f'title="{text}"' in html
    assert f'href="{settings.FLOWER_URL}/task/message of batch 4"' in html
    assert "1 done" in html
    assert "1 given up" in html
    assert "2 in progress" in html
    assert "1 waiting" in html


def test_failures_page_lists_one_job(admin_client: Client, with_failures: BackgroundJob, bob: User):
    other = make_job(bob)
    ItemFailure.objects.create(job=other, item_id=1, error_class="Bob", message="of bob's")
    listed = get(admin_client, f"/admin/jobs/itemfailure/?job__exact={with_failures.pk}")
    assert "of bob's" not in listed


def test_page_of_a_huge_job_takes_few_queries(
    admin_client: Client, alice: User, django_assert_max_num_queries
):
    job = make_job(alice, status="completed", total_items=500, failed_items=500)
    JobBatch.append(job, [[number] for number in range(500)])
    ItemFailure.objects.bulk_create(
        ItemFailure(job=job, item_id=number, error_class="ValueError", message="no")
        for number in range(500)
    )
    with django_assert_max_num_queries(14):
        html = get(admin_client, page_of(job))
    assert html.count('class="batch batch-pending"') == MAX_GRID_BATCHES == 400
    assert "and 100 more" in html


# --- The front page -------------------------------------------------------------------------


def test_front_page_counts_pruned_jobs_in_their_hour(admin_client: Client, alice: User):
    now = timezone.now()
    for minutes, status in ((300, "completed"), (301, "failed"), (2000, "failed"), (0, "running")):
        ended = None if status == "running" else now - timedelta(minutes=minutes)
        make_job(alice, minutes_ago=minutes, status=status, completed_at=ended)
    before = get(admin_client, "/admin/")
    prune()
    prune()
    assert BackgroundJob.objects.count() == 1
    assert JobOutcomes.objects.count() >= 2
    after = get(admin_client, "/admin/")
    for html in (before, after):
        assert "<dt>ended in 24 h</dt><dd>2</dd>" in html
        assert "<dt>with failures</dt><dd>1</dd>" in html
