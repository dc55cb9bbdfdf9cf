"""arq with its defaults, in a virtual environment of its own: for each line on stdin a job is
enqueued, and the seconds until the worker ran it are printed."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

QUEUE = "scribes-bench-arq"


async def light(context: dict[str, Any]) -> None:
    context["ran"].put_nowait(time.perf_counter())


async def main(url: str) -> None:
    """The worker shares our process, so that the two clocks are one."""
    settings = RedisSettings.from_dsn(url)
    ran: asyncio.Queue[float] = asyncio.Queue()
    worker = Worker(
        [light],
        redis_settings=settings,
        queue_name=QUEUE,
        ctx={"ran": ran},
        handle_signals=False,
    )
    running = asyncio.create_task(worker.async_run())
    pool = await create_pool(settings, default_queue_name=QUEUE)
    while await asyncio.to_thread(sys.stdin.readline):
        start = time.perf_counter()
        await pool.enqueue_job("light")
        print(await ran.get() - start, flush=True)
    running.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
