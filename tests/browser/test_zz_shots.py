from __future__ import annotations
from datetime import timedelta
from pathlib import Path
import pytest
from django.utils import timezone
from tests.browser.test_admin import busy_day, JOBS
from tests.helpers.browser import sign_in, PASSWORD, SIZE
from tests.helpers.factories import make_note, make_reminder, make_job
from reminders.models import Delivery
from jobs.models import ItemFailure

OUT = Path("/tmp/shots2")

def test_shots(page, web, operator, busy_day):
    OUT.mkdir(exist_ok=True)
    note = make_note(operator, "Psalm 23", scripture_refs="Psalm 23; Fooo 7", tags=["psalms", "rest"])
    r = make_reminder(note, due_in=timedelta(hours=2), rrule="FREQ=WEEKLY;BYDAY=MO", message="Read it", channels=["email", "in_app", "webhook"])
    for n, (s, ch, err) in enumerate([("sent", "email", ""), ("failed", "webhook", "Given up after 8 attempts: HTTP 500"), ("pending", "in_app", "")]):
        Delivery.objects.create(reminder=r, user=operator, occurrence_at=timezone.now() - timedelta(hours=n), channel=ch, status=s, error=err, next_attempt_at=timezone.now())
    mine = make_job(operator, status="completed", total_items=3, processed_items=2, failed_items=1, completed_at=timezone.now(), started_at=timezone.now())
    ItemFailure.objects.create(job=mine, item_id=note.pk, error_class="MemoryError", message="")
    page.goto(f"{web.url}/admin/login/?next=/admin/")
    page.screenshot(path=OUT / "login-admin.png")
    sign_in(page, web, operator)
    admin = {
        "jobs": JOBS, "job": f"{JOBS}{busy_day.pk}/change/", "attention": JOBS + "?tab=attention", "failures": "/admin/jobs/itemfailure/",
        "notes": "/admin/notes/note/", "note": f"/admin/notes/note/{note.pk}/change/", "models": "/admin/notes/userembeddingmodel/",
        "reminders": "/admin/reminders/reminder/", "reminder": f"/admin/reminders/reminder/{r.pk}/change/",
        "deliveries": "/admin/reminders/delivery/", "delivery": f"/admin/reminders/delivery/{Delivery.objects.first().pk}/change/",
        "notifications": "/admin/reminders/notification/", "users": "/admin/scribes/user/", "user": f"/admin/scribes/user/{operator.pk}/change/",
        "heartbeats": "/admin/scribes/heartbeat/", "schedule": "/admin/django_celery_beat/periodictask/", "dashboard": "/admin/",
    }
    for name, path in admin.items():
        page.set_viewport_size(SIZE)
        page.goto(web.url + path)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=OUT / f"a-{name}.png")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 400, "height": 900})
    for name in ("jobs", "job", "dashboard"):
        page.goto(web.url + admin[name])
        page.wait_for_load_state("networkidle")
        page.screenshot(path=OUT / f"dark-{name}.png")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 1400})
    api = {
        "root": "/", "notes": "/notes", "note": f"/notes/{note.pk}", "jobs": "/jobs", "myjob": f"/jobs/{mine.pk}", "failures": f"/jobs/{mine.pk}/failures",
        "search": "/semantic/search", "status": "/semantic/status", "regenerate": "/semantic/regenerate-embeddings", "reminders": "/reminders", "reminder": f"/reminders/{r.pk}",
        "snooze": f"/reminders/{r.pk}/snooze", "deliveries": f"/reminders/{r.pk}/deliveries", "preview": "/reminders/preview", "preferences": "/reminders/preferences",
        "rotate": "/reminders/preferences/rotate-secret", "notifications": "/notifications", "me": "/me", "nothing": "/nothing",
    }
    for name, path in api.items():
        page.goto(web.url + path)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=OUT / f"b-{name}.png")
    page.goto(web.url + "/notes")
    page.get_by_role("button", name="Filters").click()
    page.wait_for_timeout(800)
    page.screenshot(path=OUT / "b-filters.png")
    page.context.clear_cookies()
    page.set_viewport_size(SIZE)
    page.goto(web.url + "/notes")
    page.screenshot(path=OUT / "b-401.png")
    page.goto(web.url + "/login/")
    page.screenshot(path=OUT / "b-login.png")
