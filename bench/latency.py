"""How soon an idle worker starts a job, and how soon searches find a saved note."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from django.conf import settings

from bench import corpus
from bench.jobs import POLL_SECONDS, await_end, worker_process
from bench.measure import Line, at_most, duration, not_slower
from bench.web import Client, sign_up, web_process
from jobs.models import BackgroundJob
from notes.search.query import SEMANTIC

ROUNDS = 15
NOTES = 100
ARQ_PYTHON = settings.DATA_DIR / "peers" / "bin" / "python"
ARQ_SCRIPT = settings.BASE_DIR / "bench" / "peers" / "arq_peer.py"


def run() -> Iterator[Line]:
    with web_process() as web, worker_process("worker"), arq_worker() as arq:
        user, token = sign_up(web.port, "latency@example.com")
        client = Client(web.port, token)
        corpus.make_notes(user, corpus.texts(NOTES))
        time_to_running(client)  # the web process and the worker load the model
        time_to_found(client, "warm")
        times = [
            (
                time_to_found(client, f"{n}"),
                after_a_pause(arq),
                after_a_pause(lambda: time_to_running(client)),
            )
            for n in range(ROUNDS)
        ]
        found, theirs, running = map(median, zip(*times, strict=True))
    title = "POST to job running, idle worker, p50"
    yield not_slower(1, title, running, "arq 0.28 with its default poll, enqueue to run", theirs)
    title = "POST /notes to the first semantic search that finds the note, p50"
    yield at_most(1, title, duration(found), "two seconds", duration(2), found / 2)


def after_a_pause(work: Callable[[], float]) -> float:
    """Start at a random moment between two polls of a worker."""
    time.sleep(random.random())
    return work()


def time_to_running(client: Client) -> float:
    """Seconds from the request until the job's row says that it runs."""
    start = time.perf_counter()
    job_id = client.call("POST", "/semantic/regenerate-embeddings", {})["task_id"]
    job = BackgroundJob.objects.get(pk=job_id)
    while job.started_at is None:
        time.sleep(POLL_SECONDS)
        job.refresh_from_db()
    taken = time.perf_counter() - start
    await_end(job)
    return taken


def time_to_found(client: Client, name: str) -> float:
    """Seconds from saving a note until a semantic search finds it."""
    text = f"A recipe for pancakes, number {name}: flour, two eggs, milk and a pinch of salt."
    start = time.perf_counter()
    note_id = client.call("POST", "/notes", {"title": "Kitchen", "content": text})["id"]
    while note_id not in found_ids(client, text):
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - start


def found_ids(client: Client, text: str) -> list[int]:
    query = {"query": text, "mode": SEMANTIC, "limit": 100}
    results = client.call("POST", "/semantic/search", query)["results"]
    return [result["note"]["id"] for result in results]


@contextmanager
def arq_worker() -> Iterator[Callable[[], float]]:
    """A function that runs one arq job, and returns the seconds from its enqueuing to its start."""
    peer = subprocess.Popen(
        [str(ARQ_PYTHON), str(ARQ_SCRIPT), settings.REDIS_URL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert peer.stdin
    assert peer.stdout
    stdin, stdout = peer.stdin, peer.stdout

    def run_one() -> float:
        print(file=stdin, flush=True)
        return float(stdout.readline())

    try:
        yield run_one
    finally:
        peer.terminate()
        peer.wait()
