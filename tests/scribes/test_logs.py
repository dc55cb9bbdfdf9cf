"""What real processes log: whom a line belongs to, and none of what was confided to them."""

from __future__ import annotations

import json
import pty
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from notes.models import Note
from reminders.models import Delivery, ReminderPreferences
from reminders.tasks import sweep
from scribes.logs import discreet
from scribes.models import User
from tests.conftest import Web, worker_process
from tests.mail import MailServer
from tests.processes import environment, eventually

SECRET_TEXT = "The canary sang of mercy"
PASSWORD = "correct horse battery"
EMAIL = "alice@example.com"


def objects(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def test_a_request_is_followed_and_nothing_confided_is_logged(web: Web, tmp_path: Path):
    mail = MailServer()
    # It names the recipient, as real servers do.
    mail.refuse_recipient = f"550 5.1.1 <{EMAIL}> unknown"
    try:
        with worker_process(tmp_path, "worker", EMAIL_URL=mail.url) as worker:
            asked_job, asked_reminder = ask_for_everything(web)
            provoke_errors(web)
            log = worker.output
    finally:
        mail.stop()
    assert_followed(objects(log), asked_job, asked_reminder)
    everything = log + "".join(path.read_text() for path in tmp_path.glob("*.log"))
    preferences = ReminderPreferences.objects.get()
    token = str(web.session.headers["Authorization"]).split()[1]
    webhook, feed = preferences.webhook_secret, preferences.feed_secret
    for confided in (SECRET_TEXT, PASSWORD, EMAIL, token, webhook, feed, "hook-token"):
        assert confided not in everything


def ask_for_everything(web: Web) -> tuple[str, str]:
    """The ids of the requests for a job and for a reminder, both of which have ended."""
    web.sign_up(EMAIL, PASSWORD)
    web.get("/reminders/preferences")
    hook = {"webhook_url": "http://127.0.0.1:9/hook-token"}
    web.patch("/reminders/preferences", json=hook)
    note = web.post("/notes", json={"title": "Psalm", "content": SECRET_TEXT}).json()
    answer = web.post("/semantic/regenerate-embeddings")
    job_id = answer.json()["task_id"]
    eventually(lambda: web.get(f"/jobs/{job_id}").json()["completed_at"])
    due = (timezone.now() + timedelta(seconds=1)).isoformat()
    body = {"note_id": note["id"], "scheduled_at": due, "channels": ["email", "webhook"]}
    reminder = web.post("/reminders", json=body | {"message": SECRET_TEXT})
    assert reminder.status_code == 201, reminder.text

    def both_are_tried() -> bool:
        sweep()
        return Delivery.objects.exclude(status="pending").count() == 2

    eventually(both_are_tried)
    eventually(lambda: not Delivery.objects.filter(status="sending").exists())
    return answer.headers["X-Request-ID"], reminder.headers["X-Request-ID"]


def provoke_errors(web: Web) -> None:
    feed = ReminderPreferences.objects.get().feed_secret
    assert web.get(f"/reminders/feed/{feed[::-1]}.ics").status_code == 404
    web.post("/auth/login", json={"email": EMAIL, "password": PASSWORD + "!"})
    web.post("/notes", json={"title": "x" * 400, "content": SECRET_TEXT})


def assert_followed(lines: list[dict[str, Any]], job: str, reminder: str) -> None:
    of_job = [line["event"] for line in lines if line.get("request_id") == job]
    assert any("Processing 1 notes" in event for event in of_job)  # the job
    assert any("1/1 processed" in event for event in of_job)  # its batch
    of_reminder = [line for line in lines if line.get("request_id") == reminder]
    assert any("SMTP 550" in line["event"] and line["delivery"] for line in of_reminder)


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("redis://:pa55@host:6379/0", "redis://***@host:6379/0"),
        ("postgresql:///db?host=/x&password=pa55", "postgresql:///db?host=/x&password=***"),
        ("Not Found: /reminders/feed/abc-DEF.ics", "Not Found: /reminders/feed/***.ics"),
        ("Not Found: /reminders/links/a:b-C", "Not Found: /reminders/links/***"),
        ("bad row\nDETAIL:  Failing row (mercy,\n 2)\nHINT: x", "bad row\nDETAIL:  ***\nHINT: x"),
        ("Max retries exceeded with url: /T0/s3", "Max retries exceeded with url: ***"),
        ("Worker celery@web.example.com is ready", "Worker celery@web.example.com is ready"),
        ("Bearer eyJh.eyJz.c2ln", "Bearer ***"),
    ],
)
def test_what_is_blotted_out(said: str, logged: str):
    assert re.sub(r"\s+", " ", discreet(said)) == re.sub(r"\s+", " ", logged)


LOG = """
import django; django.setup()
import logging; logging.getLogger("jobs.runner").info("Job %s: 67%% done", 5)
"""


def test_a_line_for_people_on_a_terminal_and_json_elsewhere():
    command, env = [sys.executable, "-c", LOG], environment()
    piped = subprocess.run(command, env=env, cwd=settings.BASE_DIR, capture_output=True, text=True)
    (line,) = objects(piped.stdout)
    assert line["event"] == "Job 5: 67% done"
    assert (line["level"], line["logger"]) == ("info", "jobs.runner")
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123 a file descriptor
        subprocess.run(command, env=env, cwd=settings.BASE_DIR, stdout=theirs, check=True)
        text = terminal.read(1000).decode()
    assert text.strip().endswith("INFO jobs.runner: Job 5: 67% done")


def test_a_note_that_postgresql_refuses_is_not_quoted(alice: User):
    """Its message has the whole row."""
    note = Note(user=alice, title="x", content=SECRET_TEXT, text_hash=None)  # type: ignore[misc]
    with pytest.raises(IntegrityError, match="canary") as error, transaction.atomic():
        Note.objects.bulk_create([note])
    assert "canary" not in discreet(str(error.value))
