"""What an operator can do to a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from jobs.models import BackgroundJob
from jobs.runner import enqueue, retry_failed


class Refused(Exception):
    """Nothing was done, for this reason."""


class Operation(NamedTuple):
    label: str
    fits: Callable[[BackgroundJob], bool]
    """Whether it is offered."""
    perform: Callable[[BackgroundJob], str]
    """What was done. Raises Refused."""


def cancel(job: BackgroundJob) -> str:
    if not job.cancel():
        raise Refused("it has ended already")
    return "cancelled"


def retry(job: BackgroundJob) -> str:
    """A new job with the failed items only."""
    _refuse_active(job)
    retried = retry_failed(job)
    if retried is None:
        raise Refused("nothing has failed in it")
    return _begun(*retried)


def repeat(job: BackgroundJob) -> str:
    """A new job with the same parameters."""
    _refuse_active(job)
    return _begun(*enqueue(job.user, job.job_type, job.parameters, retry_of=job))


def _refuse_active(job: BackgroundJob) -> None:
    if not job.is_terminal:
        raise Refused("it has not ended yet")


def _begun(job: BackgroundJob, is_new: bool) -> str:
    if not is_new:
        raise Refused("another one of the same owner is under way")
    return "started again"


OPERATIONS = {
    "cancel": Operation("Cancel", lambda job: not job.is_terminal, cancel),
    "retry": Operation("Retry failed", lambda job: job.is_terminal and job.failed_items > 0, retry),
    "repeat": Operation("Run again", lambda job: job.is_terminal, repeat),
}


def offered(job: BackgroundJob) -> Iterator[tuple[str, Operation]]:
    """The names of the operations that make sense for it, and they."""
    return ((name, operation) for name, operation in OPERATIONS.items() if operation.fits(job))
