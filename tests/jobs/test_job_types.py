"""What is known of a job type: its names, its queue, and its hints."""

from __future__ import annotations

import pytest

from celery_app import QUEUES
from jobs.job_types import HINTS, JOB_TYPES, OTHER_HINT, display_name, hint, item_label
from tests.helpers.counting import Counting


def test_hint_comes_from_the_job_type():
    assert hint("counting", "ArithmeticError") == Counting.hints["ArithmeticError"]


def test_hint_of_the_job_type_goes_before_a_general_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Counting, "hints", {"MemoryError": "Count to a smaller number."})
    assert hint("counting", "MemoryError") == "Count to a smaller number."


@pytest.mark.parametrize("job_type", ["counting", "retired_type"])
@pytest.mark.parametrize("error_class", HINTS)
def test_hint_is_general_for_general_errors(job_type: str, error_class: str):
    assert hint(job_type, error_class) == HINTS[error_class]


@pytest.mark.parametrize("job_type", ["embedding_regeneration", "retired_type"])
def test_hint_names_the_log_for_unknown_errors(job_type: str):
    """Also for an error that only another job type knows."""
    assert hint(job_type, "ArithmeticError") == OTHER_HINT


def test_names_of_a_job_type_that_no_longer_exists():
    assert (display_name("retired_type"), item_label("retired_type")) == ("retired_type", "items")
    assert (display_name("counting"), item_label("counting")) == ("Counting", "numbers")


def test_each_job_type_has_a_queue_that_workers_consume():
    assert {job_type.queue for job_type in JOB_TYPES.values()} <= set(QUEUES)
    assert all(name == job_type.name for name, job_type in JOB_TYPES.items())
