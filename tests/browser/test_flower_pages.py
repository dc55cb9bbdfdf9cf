"""Flower in a browser, beside a worker."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import transaction
from playwright.sync_api import Page, expect

from jobs.runner import enqueue, plan
from notes.embeddings.regeneration import EmbeddingRegeneration
from scribes.models import User
from tests.helpers.browser import TakePicture
from tests.helpers.flower import SIGN_IN, flower_process
from tests.helpers.processes import Process, eventually
from tests.helpers.samples import psalm

pytestmark = pytest.mark.usefixtures("database")


def regenerate(user: User) -> str:
    """Plan a job here, with this process's batch size; the job's short name."""
    with transaction.atomic():
        job, _ = enqueue(user, EmbeddingRegeneration.name, {})
        plan(job.pk)
    return f"job {str(job.pk)[:8]}"


def test_flower_shows_workers_and_tasks_after_the_password(
    page: Page,
    worker: Process,
    tmp_path: Path,
    operator: User,
    settings: LazySettings,
    take_picture: TakePicture,
):
    settings.JOB_BATCH_SIZE = 2
    for number in range(20, 30):
        operator.notes.create(**psalm(number))
    with flower_process(tmp_path) as flower:
        assert page.request.get(flower.url).status == 401
        # What a browser sends after its password dialogue.
        password = b64encode(":".join(SIGN_IN).encode()).decode()
        page.set_extra_http_headers({"Authorization": f"Basic {password}"})

        page.goto(flower.url)
        expect(page.get_by_text("browsed@").first).to_be_visible()
        job = regenerate(operator)
        page.goto(f"{flower.url}/tasks")
        last = page.get_by_role("row", name=f"Embedding regeneration {job} batch 5/5")

        def succeeded() -> bool:
            # The table does not refresh itself.
            page.reload(wait_until="networkidle")
            return last.is_visible() and "SUCCESS" in last.inner_text()

        eventually(succeeded)
        take_picture(page, "flower")
