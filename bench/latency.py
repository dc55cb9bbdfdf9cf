"""How soon an idle worker begins, and how soon a saved note is found."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from django.conf import settings

from bench import corpus
from bench.jobs import POLL_SECONDS, await_end, worker
from bench.measure import Line, as_fast, at_most, duration
from bench.web import Client, serving_web, sign_up
from jobs.models import BackgroundJob

ROUNDS = 15
NOTES = 100
ARQ = settings.DATA_DIR / "peers" / "bin" / "python"


def run() -> Iterator[Line]:
    with serving_web() as web, worker("worker"), arq_worker() as arq:
        user, token = sign_up(web.port, "latency@example.com")
        client = Client(web.port, token)
        corpus.make_notes(user, corpus.texts(NOTES))
        job_runs(client)  # web and worker load the model
        found(client, "warm")
        times = [
            (found(client, f"{n}"), idle(arq), idle(lambda: job_runs(client)))
            for n in range(ROUNDS)
        ]
        saved, theirs, ours = map(median, zip(*times, strict=True))
    what = "POST to job running, idle worker, p50"
    yield as_fast(1, what, ours, "arq 0.28 with its default poll, enqueue to run", theirs)
    what = "POST /notes to the first search by meaning that finds it, p50"
    yield at_most(1, what, duration(saved), "two seconds", duration(2), saved / 2)


def idle(work: Callable[[], float]) -> float:
    """At any moment: a worker that polls may be about to, or may just have."""
    time.sleep(random.random())
    return work()


def job_runs(client: Client) -> float:
    """Seconds until everybody sees that the job runs."""
    start = time.perf_counter()
    job_id = client.call("POST", "/semantic/regenerate-embeddings", {})["task_id"]
    job = BackgroundJob.objects.get(pk=job_id)
    while job.started_at is None:
        time.sleep(POLL_SECONDS)
        job.refresh_from_db()
    taken = time.perf_counter() - start
    await_end(job)
    return taken


def found(client: Client, name: str) -> float:
    text = f"A recipe for pancakes, number {name}: flour, two eggs, milk and a pinch of salt."
    start = time.perf_counter()
    note = client.call("POST", "/notes", {"title": "Kitchen", "content": text})["id"]
    while note not in by_meaning(client, text):
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - start


def by_meaning(client: Client, text: str) -> list[int]:
    query = {"query": text, "mode": "meaning", "limit": 100}
    return [
        result["note"]["id"] for result in client.call("POST", "/semantic/search", query)["results"]
    ]


@contextmanager
def arq_worker() -> Iterator[Callable[[], float]]:
    """What measures one arq job: seconds from its being enqueued to its being run."""
    script = [str(ARQ), str(settings.BASE_DIR / "bench" / "peers" / "arq_peer.py")]
    peer = subprocess.Popen(
        [*script, settings.REDIS_URL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert peer.stdin
    assert peer.stdout
    stdin, stdout = peer.stdin, peer.stdout

    def one() -> float:
        print(file=stdin, flush=True)
        return float(stdout.readline())

    try:
        yield one
    finally:
        peer.terminate()
        peer.wait()
