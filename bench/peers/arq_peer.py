"""arq with its defaults, in a virtual environment of its own.

For each line on stdin it enqueues a job, and prints the seconds until the worker runs it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

QUEUE = "scribes-bench-arq"


async def note_time(context: dict[str, Any]) -> None:
    context["ran_at"].put_nowait(time.perf_counter())


async def main(url: str) -> None:
    """The worker runs in this process, so that both times come from the same clock."""
    settings = RedisSettings.from_dsn(url)
    ran_at: asyncio.Queue[float] = asyncio.Queue()
    worker = Worker(
        [note_time],
        redis_settings=settings,
        queue_name=QUEUE,
        ctx={"ran_at": ran_at},
        handle_signals=False,
    )
    running = asyncio.create_task(worker.async_run())
    pool = await create_pool(settings, default_queue_name=QUEUE)
    while await asyncio.to_thread(sys.stdin.readline):
        start = time.perf_counter()
        await pool.enqueue_job("note_time")
        print(await ran_at.get() - start, flush=True)
    running.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
