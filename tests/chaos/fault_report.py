"""What the faults of a test cost: a row of the table at the end of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from jobs.models import BackgroundJob
from tests.helpers.counting import counted

HEAD = ("test", "rounds", "faults", "recovery p50", "recovery max", "lost", "duplicated")


@dataclass
class FaultReport:
    title: str
    rounds: int = 0
    faults: int = 0
    recoveries: list[float] = field(default_factory=list)
    """Seconds from each fault until the work went on."""
    lost: int = 0
    duplicated: int = 0

    def assert_saved_once(self, job: BackgroundJob, expected: Iterable[int]) -> None:
        """The job has completed, and saved each of these items once and nothing else."""
        items = set(expected)
        self.count_effects(job, items)
        assert (self.lost, self.duplicated) == (0, 0)
        assert job.status == "completed"
        assert job.processed_items == len(items)
        assert job.done_items == job.total_items

    def count_effects(self, job: BackgroundJob, expected: set[int]) -> None:
        """Count the items that the job lost, and the items that it saved more than once."""
        effects = counted(job)
        self.lost += len(expected - set(effects))
        self.duplicated += len(effects) - len(set(effects))

    def row(self) -> tuple[str, ...]:
        times = (median(self.recoveries), max(self.recoveries)) if self.recoveries else ()
        shown = [f"{seconds:.1f} s" for seconds in times] or ["", ""]
        numbers = map(str, (self.rounds, self.faults))
        return (self.title, *numbers, *shown, str(self.lost), str(self.duplicated))
