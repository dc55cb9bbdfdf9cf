"""Requests about jobs from twenty clients at once, and the request that starts a regeneration."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

from django.utils import timezone

from bench import corpus
from bench.measure import Line, in_turn, not_slower, p99, seconds
from bench.web import Client, sign_up, web_process
from jobs.models import BackgroundJob
from notes.embeddings.regeneration import EmbeddingRegeneration
from scribes.models import User

CLIENTS = 20
REQUESTS = 30
ROUNDS = 7
JOBS = 20
FEW_NOTES, MANY_NOTES = 100, 20_000
BARE_VIEW = "a bare Django JSON view with the same authentication"


def run() -> Iterator[Line]:
    with web_process() as web:
        yield from requests_about_jobs(web.port)
        yield request_that_starts_a_job(web.port)


def requests_about_jobs(port: int) -> Iterator[Line]:
    user, token = sign_up(port, "jobs@example.com")
    job = make_jobs(user)
    clients = [Client(port, token) for _ in range(CLIENTS)]
    paths = {"GET /jobs/{id}": f"/jobs/{job.pk}", "GET /jobs": "/jobs", BARE_VIEW: "/bare"}
    times: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(ROUNDS):
        for name, path in paths.items():
            taken = by_all_clients(clients, path)
            times[name] += taken if number else []  # the first round does not count
    bare = times.pop(BARE_VIEW)
    for name, ours in times.items():
        title = f"{name}, {CLIENTS} clients"
        yield not_slower(2, f"{title}, p50", median(ours), BARE_VIEW, median(bare))
        yield not_slower(2, f"{title}, p99", p99(ours), BARE_VIEW, p99(bare))


def make_jobs(user: User) -> BackgroundJob:
    """Create completed jobs; return one of them."""
    now = timezone.now()
    return BackgroundJob.objects.bulk_create(
        BackgroundJob(
            user=user,
            job_type=EmbeddingRegeneration.name,
            status=BackgroundJob.Status.COMPLETED,
            total_items=150,
            processed_items=150,
            result_data={"model": "all-MiniLM-L6-v2", "embedded_notes": 150},
            dispatched_at=now,
            created_at=now,
            started_at=now,
            completed_at=now,
        )
        for _ in range(JOBS)
    )[0]


def by_all_clients(clients: list[Client], path: str) -> list[float]:
    """The seconds of each request. All clients send theirs at once."""
    with ThreadPoolExecutor(len(clients)) as pool:
        times = pool.map(partial(by_one_client, path=path), clients)
        return [taken for by_client in times for taken in by_client]


def by_one_client(client: Client, path: str) -> list[float]:
    """The seconds of REQUESTS requests, one after the other."""
    return in_turn(partial(client.call, "GET", path), rounds=REQUESTS)[0]


def request_that_starts_a_job(port: int) -> Line:
    """No worker runs. Each job is deleted before the next request, which would only name it."""
    clients = [user_with_notes(port, number) for number in (MANY_NOTES, FEW_NOTES)]
    times: list[list[float]] = [[], []]
    for _ in range(REQUESTS):
        for client, taken in zip(clients, times, strict=True):
            taken.append(seconds(partial(start_job, client)))
            BackgroundJob.objects.active().delete()
    many, few = map(median, times)
    title = f"POST /semantic/regenerate-embeddings with {MANY_NOTES:,} notes"
    return not_slower(1.2, title, many, f"with {FEW_NOTES} notes", few)


def user_with_notes(port: int, number: int) -> Client:
    user, token = sign_up(port, f"{number}@example.com")
    corpus.make_notes(user, corpus.texts(number))
    return Client(port, token)


def start_job(client: Client) -> None:
    client.call("POST", "/semantic/regenerate-embeddings", {})
