"""The tests' own job type. Its items are numbers, and each computed item leaves a row in a table.

`celery -A scribes worker --include tests.helpers.counting` makes a worker know it. Parameters of a job:
count; weight (of each number); seconds (how long each number takes); plans (what a number does instead
of being counted, such as {"13": "raise"}: raise, memory, exit, hang, or skip).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connection

from jobs.job_types import Renew, Saved, register
from jobs.models import BackgroundJob


class Counting:
    name = "counting"
    display_name = "Counting"
    item_label = "numbers"
    queue = "control"
    max_batch_weight = 1000
    hints: Mapping[str, str] = {"ArithmeticError": "Choose a luckier number."}

    def plan(self, job: BackgroundJob) -> Iterable[tuple[int, int]]:
        if job.parameters["count"] < 0:
            raise ValueError(f"there are no {job.parameters['count']} numbers")
        return self.weigh(job, range(job.parameters["count"]))

    def weigh(self, job: BackgroundJob, item_ids: Sequence[int]) -> Iterable[tuple[int, int]]:
        weight = job.parameters.get("weight", 1)
        return ((item, weight) for item in item_ids)

    def compute(self, job: BackgroundJob, item_ids: Sequence[int], renew: Renew) -> list[int]:
        # When somebody retries, the cause has been fixed.
        plans = {} if job.retry_of_id else job.parameters.get("plans", {})
        return [item for item in item_ids if self._count(item, plans, job, renew)]

    def _count(self, item: int, plans: dict[str, str], job: BackgroundJob, renew: Renew) -> bool:
        renew()
        time.sleep(job.parameters.get("seconds", 0))
        plan = plans.get(str(item))
        if plan == "raise":
            raise ArithmeticError(f"{item} brings bad luck")
        if plan == "memory":
            raise MemoryError
        if plan == "exit":
            os._exit(1)
        if plan == "hang":
            time.sleep(3600)
        return plan != "skip"

    def save(self, job: BackgroundJob, results: list[int]) -> Saved:
        with connection.cursor() as cursor:
            rows = [(job.pk, item) for item in results]
            cursor.executemany("INSERT INTO counted (job, item) VALUES (%s, %s)", rows)
        return Saved(len(results), {"sum": sum(results)})

    def summarize(self, job: BackgroundJob) -> dict[str, Any]:
        return {"counted": job.processed_items}


register(Counting())


def create_table() -> None:
    """The table has no constraint, so that an effect that happens twice is seen twice."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS counted (job uuid, item bigint)")
        cursor.execute("TRUNCATE counted")


def counted(job: BackgroundJob) -> list[int]:
    """All effects of the job, in the order of the numbers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT item FROM counted WHERE job = %s ORDER BY item", [job.pk])
        return [item for (item,) in cursor.fetchall()]
