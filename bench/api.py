"""Requests about jobs, with twenty clients at once, and the request that starts the main one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

from django.utils import timezone

from bench import corpus
from bench.measure import Line, as_fast, in_turn, p99, seconds
from bench.web import Client, serving_web, sign_up
from jobs.models import BackgroundJob
from notes.indexing import EmbeddingRegeneration
from scribes.models import User

CLIENTS = 20
REQUESTS = 30
ROUNDS = 7
JOBS = 20
FEW_NOTES, MANY_NOTES = 100, 20_000
BARE = "a bare Django JSON view with the same authentication"


def run() -> Iterator[Line]:
    with serving_web() as web:
        yield from about_jobs(web.port)
        yield starting_a_job(web.port)


def about_jobs(port: int) -> Iterator[Line]:
    user, token = sign_up(port, "jobs@example.com")
    job = make_jobs(user)
    clients = [Client(port, token) for _ in range(CLIENTS)]
    paths = {"GET /jobs/{id}": f"/jobs/{job.pk}", "GET /jobs": "/jobs", BARE: "/bare"}
    times: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(ROUNDS):
        for name, path in paths.items():
            taken = by_all(clients, path)
            times[name] += taken if number else []
    bare = times.pop(BARE)
    for name, ours in times.items():
        what = f"{name}, {CLIENTS} clients"
        yield as_fast(2, f"{what}, p50", median(ours), BARE, median(bare))
        yield as_fast(2, f"{what}, p99", p99(ours), BARE, p99(bare))


def make_jobs(user: User) -> BackgroundJob:
    now = timezone.now()
    return BackgroundJob.objects.bulk_create(
        BackgroundJob(
            user=user,
            job_type=EmbeddingRegeneration.name,
            status=BackgroundJob.Status.COMPLETED,
            total_items=150,
            processed_items=150,
            result_data={"model": "all-MiniLM-L6-v2", "embedded_notes": 150},
            deadline_at=now,
            dispatched_at=now,
            created_at=now,
            started_at=now,
            completed_at=now,
        )
        for _ in range(JOBS)
    )[0]


def by_all(clients: list[Client], path: str) -> list[float]:
    """Seconds of each request; every client sends REQUESTS, one after the other."""
    with ThreadPoolExecutor(len(clients)) as pool:
        taken = pool.map(lambda client: by_one(client, path), clients)
        return [time for times in taken for time in times]


def by_one(client: Client, path: str) -> list[float]:
    return in_turn(partial(client.call, "GET", path), rounds=REQUESTS)[0]


def starting_a_job(port: int) -> Line:
    """No worker runs; each job is deleted before the next, which would only point to it."""
    clients = [user_with_notes(port, number) for number in (MANY_NOTES, FEW_NOTES)]
    times: list[list[float]] = [[], []]
    for _ in range(REQUESTS):
        for client, taken in zip(clients, times, strict=True):
            taken.append(seconds(partial(start, client)))
            BackgroundJob.objects.active().delete()
    many, few = map(median, times)
    what = f"POST /semantic/regenerate-embeddings with {MANY_NOTES:,} notes"
    return as_fast(1.2, what, many, f"with {FEW_NOTES} notes", few)


def user_with_notes(port: int, number: int) -> Client:
    user, token = sign_up(port, f"{number}@example.com")
    corpus.make_notes(user, corpus.texts(number))
    return Client(port, token)


def start(client: Client) -> None:
    client.call("POST", "/semantic/regenerate-embeddings", {})
