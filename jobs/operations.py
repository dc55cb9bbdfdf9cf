"""What an operator can do with a job: the table of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from jobs.models import BackgroundJob
from jobs.runner import enqueue, retry_failed


class OperationRefused(Exception):
    """Nothing was done; the message says why."""


class Operation(NamedTuple):
    label: str
    is_available: Callable[[BackgroundJob], bool]
    perform: Callable[[BackgroundJob], str]
    """Returns what was done. Raises OperationRefused."""


def cancel(job: BackgroundJob) -> str:
    if not job.cancel():
        raise OperationRefused("it has already ended")
    return "cancelled"


def retry(job: BackgroundJob) -> str:
    """Start a new job with the failed items only."""
    _require_terminal(job)
    retried = retry_failed(job)
    if retried is None:
        raise OperationRefused("nothing failed in it")
    return _started(*retried)


def repeat(job: BackgroundJob) -> str:
    """Start a new job with the same parameters."""
    _require_terminal(job)
    return _started(*enqueue(job.user, job.job_type, job.parameters, retry_of=job))


def _require_terminal(job: BackgroundJob) -> None:
    if not job.is_terminal:
        raise OperationRefused("it has not ended yet")


def _started(job: BackgroundJob, is_new: bool) -> str:
    if not is_new:
        raise OperationRefused("another job of the same owner is active")
    return "started again"


OPERATIONS = {
    "cancel": Operation("Cancel", lambda job: not job.is_terminal, cancel),
    "retry": Operation(
        "Retry failed items", lambda job: job.is_terminal and job.failed_items > 0, retry
    ),
    "repeat": Operation("Run again", lambda job: job.is_terminal, repeat),
}


def available_operations(job: BackgroundJob) -> Iterator[tuple[str, Operation]]:
    """(name, operation) of each operation that makes sense for the job's state."""
    return ((name, op) for name, op in OPERATIONS.items() if op.is_available(job))
