"""What a process tells Flower about its task, and what happens if it cannot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import _state, current_app

from scribes.messaging.task_events import relabel_task


@pytest.fixture
def running_task() -> Iterator[None]:
    """A task that this process runs, as far as Celery knows."""
    task = current_app.tasks["jobs.tasks.run_batch"]
    _state._task_stack.push(task)  # type: ignore[attr-defined]
    task.push_request(id="a message", hostname="first@here", called_directly=False)
    yield
    task.pop_request()
    _state._task_stack.pop()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("running_task", "refused_redis")
def test_relabel_task_does_not_wait_for_a_broker_that_refuses(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Before a second attempt, kombu would pause for two seconds, while the lease runs out."""
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: pytest.fail("it pauses"))
    relabel_task("Counting: job 1 batch 1/2")
    assert "Flower was not told about Counting: job 1 batch 1/2" in caplog.text


@pytest.mark.usefixtures("refused_redis")
def test_relabel_task_does_nothing_outside_of_a_task(caplog: pytest.LogCaptureFixture):
    relabel_task("Counting: job 1 batch 1/2")
    assert not caplog.text
