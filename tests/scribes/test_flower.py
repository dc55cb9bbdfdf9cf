"""What Flower shows beside a real worker and to whom, and the labels of messages in the queues."""

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
from django.db import transaction
from django.utils import timezone
from rest_framework.test import APIClient

from jobs.models import BackgroundJob
from jobs.reconciler import republish_plans
from jobs.runner import publish_batches
from reminders.models import Delivery, Reminder
from reminders.retrying import retry_due_deliveries
from scribes.models import User
from tests.helpers.counting import create_table
from tests.helpers.flower import flower_process
from tests.helpers.jobs import start_counting
from tests.helpers.people import client_of
from tests.helpers.processes import eventually
from tests.helpers.reminders import in_hours, sweep
from tests.helpers.servers import delete_queues, worker_process

SECRET_TEXT = "nobody else may read this"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api(transactional_db: None) -> Iterator[APIClient]:
    """alice's client. Her requests are committed, so their messages reach the broker."""
    delete_queues()
    yield client_of(User.objects.create_user("alice@example.com"))
    delete_queues()


def publish_everything(api: APIClient) -> set[str]:
    """Start work of each kind; the labels of the messages that wait for a worker."""
    note = api.post("/notes", {"title": SECRET_TEXT, "content": SECRET_TEXT}).json()["id"]
    job = api.post("/semantic/regenerate-embeddings").json()["task_id"]
    fields = {"note_id": note, "channels": ["in_app"], "message": SECRET_TEXT}
    created = api.post("/reminders", fields | {"scheduled_at": in_hours(24)})
    assert created.status_code == 201, created.content
    Reminder.objects.update(scheduled_at=timezone.now())
    sweep()
    return {
        f"Embed saved notes: note {note}",
        f"Embedding regeneration: job {job[:8]} plan",
        f"Send reminders: delivery {str(Delivery.objects.get().pk)[:8]}",
    }


def waiting_messages() -> list[dict[str, Any]]:
    """The headers of all messages of these kinds of work."""
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        keys = [f"{settings.REDIS_KEY_PREFIX}{name}" for name in ("control", "notes", "reminders")]
        messages = [message for key in keys for message in client.lrange(key, 0, -1)]
    return [json.loads(message)["headers"] for message in messages]


def labels(messages: list[dict[str, Any]]) -> set[str]:
    return {f"{message['shadow']}: {message['argsrepr']}" for message in messages}


def test_flower_shows_labels_to_people_with_the_password(api: APIClient, tmp_path: Path):
    with flower_process(tmp_path) as flower:
        for stranger in (None, ("operator", "a guess"), ("somebody", "open sesame")):
            for path in ("/", "/tasks", "/api/workers", "/api/tasks"):
                assert flower.get(path, stranger).status_code == 401
        assert re.findall(r'data-column="(\w+)"', flower.get("/tasks").text)[:2] == ["name", "args"]

        with worker_process(tmp_path, "first"):
            eventually(lambda: "first@" in flower.get("/api/workers?refresh=1").text)
            expected = publish_everything(api)
            job = str(BackgroundJob.objects.get().pk)
            expected.add(f"Embedding regeneration: job {job[:8]} batch 1/1")
            flower.await_success(expected)
        everything = flower.get("/api/tasks").text
        assert SECRET_TEXT not in everything
        assert "@example.com" not in everything
    with flower_process(tmp_path) as flower:
        assert expected <= flower.tasks().keys(), "Flower lost its tasks in the restart"


def test_flower_shows_the_batch_that_a_message_ran(api: APIClient, tmp_path: Path, settings):
    """A message runs the batch whose turn it is, and not always the one that it was sent for."""
    settings.JOB_BATCH_SIZE = 10
    create_table()
    job = start_counting(User.objects.get(), 20)
    delete_queues()
    with transaction.atomic():
        publish_batches(job, [job.batches.get(number=2)])
    with flower_process(tmp_path) as flower:
        with worker_process(tmp_path, "counting", "--include", "tests.helpers.counting"):
            flower.await_success({f"Counting: job {str(job.pk)[:8]} batch 1/2"})
        assert not any("batch 2/2" in label for label in flower.tasks())
    job.refresh_from_db()
    assert job.processed_items == 10


def test_repeated_messages_have_the_same_labels(api: APIClient):
    expected = publish_everything(api)
    assert labels(waiting_messages()) == expected
    republish_plans(seconds=0)
    Delivery.objects.update(dispatched_at=None)
    retry_due_deliveries()
    messages = waiting_messages()
    assert labels(messages) == expected
    assert len(messages) == len(expected) + 2


def test_label_names_the_first_of_many_deliveries(api: APIClient):
    publish_everything(api)
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
    delete_queues()
    retry_due_deliveries()
    (label,) = labels(waiting_messages())
    assert re.fullmatch(r"Send reminders: delivery \w{8}, \w{8}, \w{8} and 2 more", label)
