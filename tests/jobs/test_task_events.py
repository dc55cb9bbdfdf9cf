"""What a process tells Flower about its task, and what happens if it cannot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Task, current_app
from celery._state import _task_stack

from scribes.messaging.task_events import relabel_task


@pytest.fixture
def running_task() -> Iterator[Task]:
    """A task that this process runs, as far as Celery knows."""
    task = current_app.tasks["jobs.tasks.run_batch"]
    _task_stack.push(task)
    task.push_request(id="a message", hostname="first@here", called_directly=False)
    yield task
    task.pop_request()
    _task_stack.pop()


@pytest.fixture
def new_connections(refused_redis: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery keeps no connection from before Redis refused them."""
    monkeypatch.setattr(current_app, "_pool", None)
    monkeypatch.setattr(current_app.amqp, "_producer_pool", None)


@pytest.mark.usefixtures("running_task", "new_connections")
def test_relabel_task_is_harmless_without_a_broker(caplog: pytest.LogCaptureFixture):
    relabel_task("Counting: job 1 batch 1/2")
    assert "Flower was not told about Counting: job 1 batch 1/2" in caplog.text


@pytest.mark.usefixtures("refused_redis")
def test_relabel_task_does_nothing_outside_of_a_task(caplog: pytest.LogCaptureFixture):
    relabel_task("Counting: job 1 batch 1/2")
    assert not caplog.text
