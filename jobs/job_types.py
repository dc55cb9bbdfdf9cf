"""What a job type is, and the table of all job types.

To add a job type:
1. write a class with the attributes and methods of JobType, in the app whose items it works on;
2. register it in that app's AppConfig.ready(): `job_types.register(YourJobType())`;
3. give it a queue by the rule in docs/guide.md, and hints for the errors that it knows;
4. start it with `jobs.runner.enqueue`, or with a subclass of `jobs.views.StartJobView`;
5. test it with real batches: an item that raises, an item that vanishes, a batch that runs twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from jobs.models import BackgroundJob

Renew = Callable[[], None]
"""Renews the batch's lease now and then. Raises LeaseLost when the work has become pointless."""


class LeaseLost(Exception):
    """Another process has the batch, or its job has ended: stop, since nothing can be saved."""


class Unfinished(Exception):
    """JobType.compute has kept a part of its results somewhere, and gives way to others. It is called
    again when it is the batch's turn."""


class Saved(NamedTuple):
    """What JobType.save has written."""

    items: int
    result_data: Mapping[str, int] = {}
    """Numbers that are added to those in the job's `result_data`, in the same transaction. Use a few
    fixed keys: the row must not grow with the number of items."""


class JobType(Protocol):
    """What one kind of job does. Item ids are integers that only the job type understands."""

    name: str
    """Stored in job rows and shown in the API: "embedding_regeneration"."""
    display_name: str
    """For people, in answers, in the admin and in Flower: "Embedding regeneration"."""
    item_label: str
    """What the items are, in the plural: "notes"."""
    queue: str
    max_batch_weight: int
    """A batch is full with JOB_BATCH_SIZE items, or with items of this total weight."""
    hints: Mapping[str, str]
    """What a person can do about a failed item, by its error_class."""

    def plan(self, job: BackgroundJob) -> Iterable[tuple[int, int]]:
        """(id, weight) of every item, once. Called again if planning is interrupted."""

    def weigh(self, job: BackgroundJob, item_ids: Sequence[int]) -> Iterable[tuple[int, int]]:
        """(id, weight) of those of these items that still exist."""

    def compute(self, job: BackgroundJob, item_ids: Sequence[int], renew: Renew) -> Any:
        """The results of these items. It may be slow, and may run twice. No transaction is open.

        Call `renew` several times in each JOB_LEASE_SECONDS. If this raises for several items, it is
        called again for each item alone. If items take longer than others should wait, keep what is
        computed, and raise Unfinished. Each call must then get closer to the end.
        """

    def save(self, job: BackgroundJob, results: Any) -> Saved:
        """Write results. It runs inside the runner's transaction, so it must be fast.

        Do not count items that needed nothing because they are empty or were deleted.
        """

    def summarize(self, job: BackgroundJob) -> dict[str, Any]:
        """What `result_data` says about the job. It runs in the transaction that completes the job,
        so it must be fast."""


JOB_TYPES: dict[str, JobType] = {}

# For errors that no job type knows more about.
HINTS = {
    "AttemptsUsedUp": (
        "The process died or hung each time it worked on this item. Search the worker's log for the "
        "item. Make the item smaller, or give the worker more memory or TASK_TIME_LIMIT_SECONDS."
    ),
    "MemoryError": "The worker ran out of memory. Make the item smaller, or add memory.",
    "OperationalError": "The database did not answer. Retry the job when it does.",
}
OTHER_HINT = "The worker's log has the traceback. Fix the cause, then retry the job."


def register(job_type: JobType) -> None:
    JOB_TYPES[job_type.name] = job_type


def types_of_queue(queue: str) -> list[str]:
    """The names of the job types whose batches go through this queue."""
    return [name for name, job_type in JOB_TYPES.items() if job_type.queue == queue]


def display_name(name: str) -> str:
    """Also for a type that no longer exists: its jobs are still listed."""
    return JOB_TYPES[name].display_name if name in JOB_TYPES else name


def item_label(name: str) -> str:
    return JOB_TYPES[name].item_label if name in JOB_TYPES else "items"


def hint(name: str, error_class: str) -> str:
    """What a person can do about an item of this job type that failed with this error."""
    hints = {**HINTS, **(JOB_TYPES[name].hints if name in JOB_TYPES else {})}
    return hints.get(error_class, OTHER_HINT)
