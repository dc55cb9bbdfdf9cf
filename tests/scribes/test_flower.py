"""What Flower shows beside a real worker, and to whom; and what messages say of themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.utils import timezone
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from jobs.reconciler import republish_plans
from reminders.models import Delivery, Reminder
from reminders.sending import resend
from reminders.sweep import database_now, sweep
from scribes.models import User
from tests.conftest import client_of, forget_queues, worker_process
from tests.flower import flower_process
from tests.processes import eventually

SECRET_TEXT = "nobody else is to read this"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api(transactional_db: None) -> Iterator[APIClient]:
    """alice's; what she asks for is committed and goes to the broker."""
    forget_queues()
    yield client_of(User.objects.create_user("alice@example.com"))
    forget_queues()


def ask(api: APIClient) -> set[str]:
    """Work of each kind, and what is to be said of it until there is a worker."""
    note = api.post("/notes", {"title": SECRET_TEXT, "content": SECRET_TEXT}).json()["id"]
    job = api.post("/semantic/regenerate-embeddings").json()["task_id"]
    fields = {"note_id": note, "channels": ["in_app"], "message": SECRET_TEXT}
    tomorrow = timezone.now() + timedelta(days=1)
    made = api.post("/reminders", fields | {"scheduled_at": tomorrow.isoformat()})
    assert made.status_code == 201, made.content
    Reminder.objects.update(scheduled_at=timezone.now())
    sweep(database_now())
    return {
        f"embed-note {note}",
        f"regenerate-embeddings job {job[:8]} plan",
        f"send-reminders delivery {str(Delivery.objects.get().pk)[:8]}",
    }


def waiting(queue: str) -> list[dict[str, Any]]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        messages = client.lrange(f"{settings.REDIS_KEY_PREFIX}{queue}", 0, -1)
    return [json.loads(message)["headers"] for message in messages]


def test_it_shows_workers_and_what_each_task_is_to_those_who_have_the_password(
    api: APIClient, tmp_path: Path
):
    with flower_process(tmp_path) as flower:
        for stranger in (None, ("operator", "a guess"), ("somebody", "open sesame")):
            for path in ("/", "/tasks", "/api/workers", "/api/tasks"):
                assert flower.get(path, stranger).status_code == 401
        assert re.findall(r'data-column="(\w+)"', flower.get("/tasks").text)[:2] == ["name", "args"]

        with worker_process(tmp_path, "first"):
            eventually(lambda: "first@" in flower.get("/api/workers?refresh=1").text)
            expected = ask(api)
            job = BackgroundJob.objects.get()
            expected.add(f"regenerate-embeddings job {str(job.pk)[:8]} batch 1/1")
            flower.await_success(expected)
        everything = flower.get("/api/tasks").text
        assert SECRET_TEXT not in everything
        assert "@example.com" not in everything
    with flower_process(tmp_path) as flower:
        assert expected <= flower.tasks().keys(), "it forgets when it is started again"


def test_what_is_sent_again_says_the_same(api: APIClient):
    said = ask(api)
    republish_plans(patience=0)
    Delivery.objects.update(dispatched_at=None)
    resend()
    messages = [*waiting("default"), *waiting("reminders")]
    assert {f"{m['shadow']} {m['argsrepr']}" for m in messages} == said
    assert len(messages) == len(said) + 2


def test_a_message_of_many_deliveries_names_the_first(api: APIClient):
    ask(api)
    reminder = Reminder.objects.get()
    reminder.deliveries.all().delete()
    for hours in range(5):
        Delivery.objects.create(
            reminder=reminder,
            user=reminder.user,
            occurrence_at=timezone.now() - timedelta(hours=hours),
            channel="in_app",
            next_attempt_at=timezone.now(),
        )
    forget_queues()
    resend()
    (message,) = waiting("reminders")
    assert re.fullmatch(r"delivery \w{8}, \w{8}, \w{8} and 2 more", message["argsrepr"])
