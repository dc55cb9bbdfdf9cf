"""Flower beside a real worker: who may look, and what a message says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from jobs.models import BackgroundJob
from jobs.reconciler import republish_plans
from reminders.models import Delivery, Reminder
from reminders.sweep import database_now, sweep
from tests.conftest import Web, worker_process
from tests.flower import Flower, flower_process
from tests.processes import eventually

SECRET_TEXT = "nobody else is to read this"


@pytest.fixture
def flower(transactional_db: None, tmp_path: Path) -> Iterator[Flower]:
    folder = tmp_path / "flower"
    folder.mkdir()
    with flower_process(folder) as flower:
        yield flower


def write_note(web: Web) -> int:
    web.sign_up("alice@example.com")
    note = web.post("/notes", json={"title": SECRET_TEXT, "content": SECRET_TEXT}).json()
    return int(note["id"])


def remind(web: Web, note_id: int) -> Delivery:
    """A reminder that a sweep finds due."""
    tomorrow = timezone.now() + timedelta(days=1)
    fields = {"note_id": note_id, "channels": ["in_app"], "message": SECRET_TEXT}
    made = web.post("/reminders", json=fields | {"scheduled_at": tomorrow.isoformat()})
    assert made.status_code == 201, made.text
    Reminder.objects.update(scheduled_at=timezone.now())
    sweep(database_now())
    return Delivery.objects.get()


def test_it_shows_workers_and_what_each_task_is_to_those_who_have_the_password(
    flower: Flower, web: Web, tmp_path: Path
):
    for stranger in (None, ("operator", "a guess"), ("somebody", "open sesame")):
        for path in ("/", "/tasks", "/api/workers", "/api/tasks"):
            assert flower.get(path, stranger).status_code == 401

    with worker_process(tmp_path, "first"):
        eventually(
            lambda: any("first@" in name for name in flower.get("/api/workers?refresh=1").json())
        )
        note_id = write_note(web)
        job = web.post("/semantic/regenerate-embeddings").json()["task_id"]
        delivery = remind(web, note_id)
        expected = {
            f"embed-note {note_id}",
            f"regenerate-embeddings job {job[:8]} plan",
            f"regenerate-embeddings job {job[:8]} batch 1/1",
            f"send-reminders delivery {str(delivery.pk)[:8]}",
        }
        flower.await_success(expected)

    page = flower.get("/tasks").text
    assert re.findall(r'data-column="(\w+)"', page)[:2] == ["name", "args"]
    everything = json.dumps(flower.get("/api/tasks").json())
    assert SECRET_TEXT not in everything
    assert "@example.com" not in everything


def test_it_remembers_after_a_restart(transactional_db: None, web: Web, tmp_path: Path):
    folder = tmp_path / "flower"
    folder.mkdir()
    with flower_process(folder) as flower, worker_process(tmp_path, "first"):
        note_id = write_note(web)
        eventually(lambda: f"embed-note {note_id}" in flower.tasks())
    with flower_process(folder) as flower:
        assert f"embed-note {note_id}" in flower.tasks()


def test_what_is_sent_again_says_the_same(flower: Flower, web: Web, tmp_path: Path):
    """Messages that the reconciler repeats, before any worker is there."""
    write_note(web)
    job = web.post("/semantic/regenerate-embeddings").json()["task_id"]
    BackgroundJob.objects.update(dispatched_at=timezone.now() - timedelta(hours=1))
    republish_plans(patience=0)

    def plans() -> list[dict[str, Any]]:
        tasks = flower.get("/api/tasks").json().values()
        return [t for t in tasks if t["args"] == f"job {job[:8]} plan"]

    with worker_process(tmp_path, "first"):
        eventually(lambda: [t["name"] for t in plans()] == ["regenerate-embeddings"] * 2)
