"""What real processes log: lines that name their request, and no secrets."""

from __future__ import annotations

import json
import logging
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from notes.models import Note
from reminders.models import Delivery, Reminder, ReminderPreferences
from reminders.tasks import sweep
from scribes.models import User
from scribes.monitoring.logging import current_request_id, formatter, log_context, redact
from tests.helpers.mail import MailServer
from tests.helpers.processes import environment, eventually
from tests.helpers.reminders import in_hours
from tests.helpers.servers import Web, worker_process

SECRET_TEXT = "The canary sang of mercy"
PASSWORD = "correct horse battery"
EMAIL = "alice@example.com"


def json_lines(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def test_log_lines_name_their_request_and_hold_no_secrets(web: Web, tmp_path: Path):
    mail = MailServer()
    # It names the recipient, as real servers do.
    mail.refuse_recipient = f"550 5.1.1 <{EMAIL}> unknown"
    try:
        with worker_process(tmp_path, "worker", EMAIL_URL=mail.url) as worker:
            job_request, reminder_request = use_everything(web)
            provoke_errors(web)
            log = worker.output
    finally:
        mail.stop()
    assert_lines_of_job(json_lines(log), job_request)
    assert_lines_of_reminder(json_lines(log), reminder_request)
    everything = log + "".join(path.read_text() for path in tmp_path.glob("*.log"))
    preferences = ReminderPreferences.objects.get()
    token = str(web.session.headers["Authorization"]).split()[1]
    secrets = (preferences.webhook_secret, preferences.feed_secret, token, "hook-token")
    for secret in (SECRET_TEXT, PASSWORD, EMAIL, *secrets):
        assert secret not in everything


def use_everything(web: Web) -> tuple[str, str]:
    """Run a job and send a reminder; the ids of the requests that started them."""
    web.sign_up(EMAIL, PASSWORD)
    web.get("/reminders/preferences")
    hook = {"webhook_url": "http://127.0.0.1:9/hook-token"}
    web.patch("/reminders/preferences", json=hook)
    note = web.post("/notes", json={"title": "Psalm", "content": SECRET_TEXT}).json()
    accepted = web.post("/semantic/regenerate-embeddings")
    job_id = accepted.json()["task_id"]
    eventually(lambda: web.get(f"/jobs/{job_id}").json()["completed_at"])
    body = {"note_id": note["id"], "scheduled_at": in_hours(1), "channels": ["email", "webhook"]}
    reminder = web.post("/reminders", json=body | {"message": SECRET_TEXT})
    assert reminder.status_code == 201, reminder.text
    Reminder.objects.update(scheduled_at=timezone.now())
    sweep()
    eventually(lambda: Delivery.objects.exclude(status="pending").count() == 2)
    eventually(lambda: not Delivery.objects.filter(status="sending").exists())
    return accepted.headers["X-Request-ID"], reminder.headers["X-Request-ID"]


def provoke_errors(web: Web) -> None:
    feed = ReminderPreferences.objects.get().feed_secret
    assert web.get(f"/reminders/feed/{feed[::-1]}.ics").status_code == 404
    web.post("/auth/login", json={"email": EMAIL, "password": PASSWORD + "!"})
    web.post("/notes", json={"title": "x" * 400, "content": SECRET_TEXT})


def assert_lines_of_job(lines: list[dict[str, Any]], request_id: str) -> None:
    events = [line["event"] for line in lines if line.get("request_id") == request_id]
    assert any("Processing 1 notes" in event for event in events)  # the job
    assert any("1/1 processed" in event for event in events)  # its batch


def assert_lines_of_reminder(lines: list[dict[str, Any]], request_id: str) -> None:
    of_reminder = [line for line in lines if line.get("request_id") == request_id]
    assert any("SMTP 550" in line["event"] and line["delivery"] for line in of_reminder)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("redis://:pa55@host:6379/0", "redis://***@host:6379/0"),
        ("postgresql:///db?host=/x&password=pa55", "postgresql:///db?host=/x&password=***"),
        ("rediss://host/0?password=pa55&db=1", "rediss://host/0?password=***&db=1"),
        ("POST https://hooks.example/T0/s3 failed", "POST https://hooks.example/*** failed"),
        ("Not Found: /reminders/feed/abc-DEF.ics", "Not Found: /reminders/feed/***.ics"),
        ("Not Found: /reminders/links/a:b-C", "Not Found: /reminders/links/***"),
        ("bad row\nDETAIL:  Failing row (mercy,\n 2)\nHINT: x", "bad row\nDETAIL:  ***\nHINT: x"),
        ("bad row\nDETAIL:  Failing row (mercy)", "bad row\nDETAIL:  ***"),
        ("Max retries exceeded with url: /T0/s3", "Max retries exceeded with url: ***"),
        ("Bearer eyJh.eyJz.c2ln", "Bearer ***"),
        ("bearer abc", "bearer ***"),
        ("the token eyJhbGci.eyJzdWIi.c2ln_-9", "the token ***"),
        ("<alice.b+c@mail.example.com> is unknown", "<***@***> is unknown"),
    ],
)
def test_redact_replaces_secrets(text: str, redacted: str):
    assert re.sub(r"\s+", " ", redact(text)) == re.sub(r"\s+", " ", redacted)


@pytest.mark.parametrize(
    "text",
    [
        "Worker celery@web.example.com is ready",
        "Job 0f8fad5b: 100/150 processed, 0 failed, 67% done",
        "GET /notes?limit=20 took 3:07 s",
        "unix:///run/valkey.sock",
    ],
)
def test_redact_leaves_other_text_as_it_is(text: str):
    assert redact(text) == text


def test_redact_removes_the_row_that_postgresql_quotes(alice: User):
    note = Note(user=alice, title="x", content=SECRET_TEXT, text_hash=None)  # type: ignore[misc]
    with pytest.raises(IntegrityError, match="canary") as error, transaction.atomic():
        Note.objects.bulk_create([note])
    assert "canary" not in redact(str(error.value))


# --- Format and context ---------------------------------------------------------------------

LOG = """
import django; django.setup()
import logging; logging.getLogger("jobs.runner").info("Job %s: 67%% done", 5)
"""


def test_log_is_text_on_a_terminal_and_json_elsewhere():
    command, env = [sys.executable, "-c", LOG], environment()
    piped = subprocess.run(command, env=env, cwd=settings.BASE_DIR, capture_output=True, text=True)
    (line,) = json_lines(piped.stdout)
    assert line["event"] == "Job 5: 67% done"
    assert (line["level"], line["logger"]) == ("info", "jobs.runner")
    reader, writer = pty.openpty()
    with open(reader, "rb", buffering=0) as terminal:  # noqa: PTH123 a file descriptor
        subprocess.run(command, env=env, cwd=settings.BASE_DIR, stdout=writer, check=True)
        text = terminal.read(1000).decode()
    assert text.strip().endswith("INFO jobs.runner: Job 5: 67% done")


def test_log_context_adds_values_that_are_not_empty():
    with log_context(request_id="r1", job=""):
        assert current_request_id() == "r1"
        with log_context(request_id="r2"):
            assert current_request_id() == "r2"
        assert structlog.contextvars.get_contextvars() == {"request_id": "r1"}
    assert current_request_id() == ""


def test_formatter_redacts_messages_and_tracebacks():
    try:
        raise ValueError("redis://:pa55@host/0")
    except ValueError:
        record = logging.LogRecord(
            "x", logging.ERROR, "", 0, "sent to %s", (EMAIL,), sys.exc_info()
        )
    (line,) = json_lines(formatter("json").format(record))
    assert line["event"] == "sent to ***@***"
    assert "redis://***@host/0" in line["exception"]
    assert "pa55" not in line["exception"]
