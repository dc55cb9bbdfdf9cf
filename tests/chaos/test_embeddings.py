"""Embedding jobs on real notes while processes are killed."""

from __future__ import annotations

import numpy as np
import pytest

from notes.embeddings.encoder import encoder
from notes.embeddings.pipeline import passages_of
from notes.embeddings.regeneration import EmbeddingRegeneration
from notes.models import Note
from scribes.models import User
from tests.chaos.deployment import Deployment, kill, pool_processes
from tests.chaos.fault_report import FaultReport
from tests.chaos.jobs import await_end, await_progress, create_job
from tests.helpers.processes import eventually
from tests.helpers.samples import psalm

NOTES = 50


@pytest.mark.long
def test_vectors_are_right_when_pool_processes_are_killed(
    deployment: Deployment, fault_report: FaultReport
):
    deployment.beat()
    worker = deployment.ready_worker(JOB_BATCH_SIZE="5")
    user = User.objects.create_user("alice@example.com")
    for number in range(1, NOTES + 1):
        Note.objects.create(user=user, **psalm(number))
    fault_report.rounds, fault_report.faults = 1, 10
    job = create_job(user, EmbeddingRegeneration.name, {})
    while len(fault_report.recoveries) < fault_report.faults:
        await_progress(job)
        kill(eventually(lambda: pool_processes(worker))[0])
        fault_report.recoveries.append(await_progress(job))
        if job.is_terminal:
            job = create_job(user, EmbeddingRegeneration.name, {})
    job = await_end(job)
    assert (job.status, job.processed_items, job.failed_items) == ("completed", NOTES, 0)
    for note in Note.objects.all():
        assert_vectors_are_right(note)


def assert_vectors_are_right(note: Note) -> None:
    """They are what the model makes of the note's text."""
    stored = np.array(note.passages.order_by("ordinal").values_list("vector", flat=True))
    expected = encoder().embed(passages_of(note, encoder())[1])
    assert stored.shape == expected.shape
    assert (stored * expected).sum(axis=1).min() >= 0.999
