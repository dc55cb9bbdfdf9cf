"""The admin's pages of jobs, over HTTP: who may do what, and what they show and cost."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.utils import timezone

from jobs.models import BackgroundJob, EndedJobs, ItemFailure, JobBatch
from jobs.reconciler import prune
from jobs.tasks import run_batch
from scribes.models import User
from tests.jobs.conftest import batch_ids, make_job, start

LIST = "/admin/jobs/backgroundjob/"


def staff(*permissions: str) -> Client:
    user = User.objects.create_user("charlie@example.com", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def page_of(job: BackgroundJob) -> str:
    return f"{LIST}{job.pk}/change/"


def operate(client: Client, job: BackgroundJob, operation: str, **headers: str):
    return client.post(f"{LIST}{job.pk}/operate/{operation}/", headers=headers)


def with_failures(user: User) -> BackgroundJob:
    job = start(user, 30, plans={"3": "raise", "13": "raise", "23": "memory"})
    run_batch(*batch_ids(job))
    job.refresh_from_db()
    return job


# --- Who may ---------------------------------------------------------------------------------


def test_who_may_only_view_jobs_gets_no_buttons_and_cannot_operate(alice: User):
    job = start(alice, 5)
    client = staff("view_backgroundjob")
    for page in (LIST, page_of(job)):
        html = client.get(page).content.decode()
        assert "running" in html
        assert "/operate/" not in html
        assert "cancel_jobs" not in html
    assert operate(client, job, "cancel").status_code == 403
    client.post(LIST, {"action": "cancel_jobs", "_selected_action": [str(job.pk)]})
    job.refresh_from_db()
    assert job.status == "running"


def test_who_may_change_jobs_operates_but_edits_nothing(alice: User):
    job = start(alice, 5)
    client = staff("change_backgroundjob")
    assert "/operate/cancel/" in client.get(LIST).content.decode()
    assert client.post(page_of(job), {"status": "completed"}).status_code == 403
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}{job.pk}/delete/", {"post": "yes"}).status_code == 403
    assert operate(client, job, "cancel").status_code == 302
    job.refresh_from_db()
    assert job.status == "cancelled"


@pytest.mark.parametrize("permissions", [(), ("view_note",)])
def test_who_may_not_view_jobs_sees_none(alice: User, permissions: tuple[str, ...]):
    job = start(alice, 5)
    client = staff(*permissions)
    for page in (LIST, page_of(job), "/admin/jobs/itemfailure/"):
        assert client.get(page).status_code == 403
    assert operate(client, job, "cancel").status_code == 403


def test_operating_needs_a_signed_in_post_from_here(alice: User, admin_user: User):
    job = start(alice, 5)
    assert "/login/" in operate(Client(), job, "cancel").headers["Location"]
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(admin_user)
    assert operate(careful, job, "cancel").status_code == 403
    careful.get(f"{LIST}{job.pk}/operate/cancel/")
    job.refresh_from_db()
    assert job.status == "running"


# --- What they do ----------------------------------------------------------------------------


def test_operations_on_one_job(admin_client: Client, alice: User):
    failed = with_failures(alice)
    response = operate(admin_client, failed, "retry", referer=f"http://testserver{LIST}?q=a")
    assert response.headers["Location"] == f"http://testserver{LIST}?q=a"
    retry = BackgroundJob.objects.get(retry_of=failed)
    assert retry.parameters["item_ids"] == [3, 13, 23]
    operate(admin_client, retry, "cancel")
    operate(admin_client, failed, "repeat", referer="https://elsewhere.example/")
    again = BackgroundJob.objects.exclude(pk=retry.pk).get(retry_of=failed)
    assert (again.parameters, again.user) == (failed.parameters, alice)
    page = admin_client.get(LIST).content.decode()
    assert page.count("1 job: started again") == 2
    assert page.count("1 job: cancelled") == 1
    history = admin_client.get(f"{LIST}{failed.pk}/history/").content.decode()
    assert history.count("started again") == 2


def test_an_unknown_operation_or_job_is_404(admin_client: Client, alice: User):
    job = start(alice, 5)
    assert operate(admin_client, job, "explode").status_code == 404
    job.delete()
    job.pk = "00000000-0000-0000-0000-000000000000"
    assert operate(admin_client, job, "cancel").status_code == 404


def test_actions_on_many_say_what_became_of_each(admin_client: Client, alice: User, bob: User):
    jobs = [start(alice, 5), start(bob, 5), make_job(alice, status="completed")]
    chosen = [str(job.pk) for job in jobs]
    form = {"action": "cancel_jobs", "_selected_action": chosen}
    page = admin_client.post(LIST, form, follow=True).content.decode()
    assert "2 jobs: cancelled" in page
    assert "1 job: it has ended already" in page
    assert not BackgroundJob.objects.active().exists()
    form = {"action": "retry_jobs", "_selected_action": chosen}
    page = admin_client.post(LIST, form, follow=True).content.decode()
    assert "3 jobs: nothing has failed in it" in page
    jobs = [make_job(bob, status="failed"), make_job(bob, status="failed")]
    form = {"action": "repeat_jobs", "_selected_action": [str(job.pk) for job in jobs]}
    page = admin_client.post(LIST, form, follow=True).content.decode()
    assert "1 job: started again" in page
    assert "1 job: another one of the same owner is under way" in page


# --- What they show --------------------------------------------------------------------------


def counts_of_tabs(html: str) -> list[int]:
    tabs = html.split('<ul class="tabs"')[1].split("</ul>")[0]
    return [int(part.split("</b>")[0]) for part in tabs.split("<b>")[1:]]


def test_tabs_count_what_they_hold(admin_client: Client, alice: User, bob: User):
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
    html = admin_client.get(LIST).content.decode()
    assert counts_of_tabs(html) == [8, 3, 3, 5]
    html = admin_client.get(f"{LIST}?tab=attention").content.decode()
    assert html.count('data-state="') == 3
    assert counts_of_tabs(html) == [8, 3, 3, 5]
    html = admin_client.get(f"{LIST}?q=bob@&tab=done").content.decode()
    assert counts_of_tabs(html) == [1, 0, 0, 1]
    assert admin_client.get(f"{LIST}?tab=nonsense").status_code in (200, 302)


def test_the_list_shows_how_far_a_job_is(admin_client: Client, alice: User):
    half_a_minute = timezone.now() - timedelta(seconds=20)
    make_job(
        alice,
        status="running",
        minutes_ago=1,
        started_at=half_a_minute,
        total_items=200,
        processed_items=132,
        failed_items=2,
    )
    html = admin_client.get(LIST).content.decode()
    assert 'role="progressbar"' in html
    assert 'aria-valuenow="67"' in html
    assert "134/200 · 67 % · about 10 s left" in html
    assert "2 failed" in html
    assert 'hx-trigger="every 2s' in html


def test_a_list_where_nothing_moves_is_not_fetched_again(admin_client: Client, alice: User):
    make_job(alice, status="completed")
    assert "every 2s" not in admin_client.get(LIST).content.decode()


def test_the_page_of_a_job_groups_failures_by_cause(admin_client: Client, alice: User):
    job = with_failures(alice)
    html = admin_client.get(page_of(job)).content.decode()
    assert "The job is complete: 30 of 30 numbers done, 3 failed." in html
    assert "Batch 1: done, 30 items" in html
    assert "ArithmeticError" in html
    assert "The worker ran out of memory." in html
    assert "Open in Flower" in html
    failures = f"/admin/jobs/itemfailure/?job__exact={job.pk}"
    assert failures in html
    listed = admin_client.get(failures).content.decode()
    assert "13 brings bad luck" in listed


def test_failures_of_other_jobs_are_not_listed_with_a_jobs(
    admin_client: Client, alice: User, bob: User
):
    other = make_job(bob)
    ItemFailure.objects.create(job=other, item_id=1, error_class="Bob", message="of bob's")
    job = with_failures(alice)
    listed = admin_client.get(f"/admin/jobs/itemfailure/?job__exact={job.pk}").content.decode()
    assert "of bob's" not in listed


# --- What they cost --------------------------------------------------------------------------


def test_a_list_of_a_hundred_jobs_takes_a_few_queries(
    admin_client: Client, django_assert_max_num_queries
):
    for number in range(100):
        user = User.objects.create_user(f"person{number}@example.com")
        make_job(user, status="completed", total_items=9, processed_items=7, failed_items=2)
    with django_assert_max_num_queries(12):
        assert admin_client.get(LIST).status_code == 200


def test_the_page_of_a_huge_job_takes_a_few_queries(
    admin_client: Client, alice: User, django_assert_max_num_queries
):
    job = make_job(alice, status="completed", total_items=500, failed_items=500)
    JobBatch.append(job, [[number] for number in range(500)])
    ItemFailure.objects.bulk_create(
        ItemFailure(job=job, item_id=number, error_class="ValueError", message="no")
        for number in range(500)
    )
    with django_assert_max_num_queries(14):
        html = admin_client.get(page_of(job)).content.decode()
    assert html.count('class="square square-pending"') == 400
    assert "and 100 more" in html


# --- The front page --------------------------------------------------------------------------


def test_jobs_count_for_their_hour_also_when_they_have_been_pruned(
    admin_client: Client, alice: User
):
    now = timezone.now()
    for minutes, status in ((300, "completed"), (301, "failed"), (2000, "failed"), (0, "running")):
        ended = None if status == "running" else now - timedelta(minutes=minutes)
        make_job(alice, minutes_ago=minutes, status=status, completed_at=ended)
    before = admin_client.get("/admin/").content.decode()
    prune()
    prune()
    assert BackgroundJob.objects.count() == 1
    assert EndedJobs.objects.count() >= 2
    after = admin_client.get("/admin/").content.decode()
    for html in (before, after):
        assert '<dt>ended in 24 h</dt><dd class="nowrap">2</dd>' in html
        assert '<dt>of them not well</dt><dd class="nowrap">1</dd>' in html
