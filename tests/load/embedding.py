"""Saved notes and jobs, alone and beside the floods of others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from statistics import median

from django.core.management import call_command
from django.db.models.functions import Now

from jobs.models import BackgroundJob
from jobs.runner import enqueue
from notes.embeddings.regeneration import EmbeddingRegeneration
from notes.embeddings.saved_notes import publish_hint
from notes.pending_embeddings import TURN_BYTES, PendingEmbedding
from scribes.embedded.sample_texts import psalm
from scribes.models import User
from scribes.monitoring import heartbeats
from tests.load.deployment import Person, Scribes, wait_until, write_notes
from tests.load.report import Row, seconds, slower

ROUNDS = 7
NOTE_CHARACTERS = 330
MEGABYTE = 1_000_000
_numbers = count(1)


def texts(number: int, characters: int = NOTE_CHARACTERS) -> list[str]:
    """Different parts of the Psalms."""
    psalms = "\n".join(psalm(n)["content"] for n in range(1, 151))
    while len(psalms) < characters:
        psalms += psalms
    step = max(1, (len(psalms) - characters) // number)
    return [f"{n}. {psalms[n * step : n * step + characters]}" for n in range(number)]


# --- What a person waits for ----------------------------------------------------------------


def time_to_found(person: Person) -> float:
    """Seconds from saving a note until a semantic search finds it."""
    text = (
        f"A recipe for pancakes, number {next(_numbers)}: flour, two eggs, milk, a pinch of salt."
    )
    start = time.perf_counter()
    note_id = person.call("POST", "/notes", {"title": "Kitchen", "content": text})["id"]
    query = {"query": text, "mode": "semantic", "limit": 100}
    wait_until(
        lambda: (
            note_id
            in [
                hit["note"]["id"]
                for hit in person.call("POST", "/semantic/search", query)["results"]
            ]
        )
    )
    return time.perf_counter() - start


def time_of_job(person: Person) -> float:
    """Seconds from the request until the job has ended."""
    start = time.perf_counter()
    job_id = person.call("POST", "/semantic/regenerate-embeddings", {})["task_id"]
    wait_until(lambda: person.call("GET", f"/jobs/{job_id}")["completed_at"])
    return time.perf_counter() - start


def time_to_start(person: Person) -> float:
    """Seconds from the request until the job runs. Then it is cancelled."""
    start = time.perf_counter()
    job_id = person.call("POST", "/semantic/regenerate-embeddings", {})["task_id"]
    wait_until(lambda: person.call("GET", f"/jobs/{job_id}")["started_at"])
    taken = time.perf_counter() - start
    person.call("POST", f"/jobs/{job_id}/cancel")
    return taken


def median_of(measure: Callable[[], float], rounds: int = ROUNDS) -> float:
    return median(measure() for _ in range(rounds))


# --- What others do -------------------------------------------------------------------------


@contextmanager
def pending_notes(scribes: Scribes, number: int) -> Iterator[None]:
    """Another user has saved this many notes, which wait for their embedding."""
    other = scribes.person()
    notes = write_notes(other.user, texts(number))
    cost = NOTE_CHARACTERS + TURN_BYTES
    PendingEmbedding.objects.bulk_create(
        PendingEmbedding(note=note, user=other.user, since=Now(), size=NOTE_CHARACTERS, turn=turn)
        for note, turn in zip(notes, count(step=cost), strict=False)
    )
    publish_hint("a flood")
    yield
    assert PendingEmbedding.objects.filter(user=other.user).exists(), "the flood ended too early"
    PendingEmbedding.objects.filter(user=other.user).delete()


@contextmanager
def long_job(scribes: Scribes, number: int) -> Iterator[None]:
    """Another user's job over this many notes is running."""
    other = scribes.person()
    write_notes(other.user, texts(number))
    job_id = other.call("POST", "/semantic/regenerate-embeddings", {})["task_id"]
    wait_until(lambda: other.call("GET", f"/jobs/{job_id}")["processed_items"])
    yield
    assert other.call("GET", f"/jobs/{job_id}")["status"] == "running", "it ended too early"
    other.call("POST", f"/jobs/{job_id}/cancel")


def saved_long_notes(scribes: Scribes, number: int) -> None:
    """Another user has just saved this many notes of a megabyte."""
    other = scribes.person()
    for text in texts(number, MEGABYTE - 100):
        other.call("POST", "/notes", {"title": "Long", "content": text})


# --- Cases ----------------------------------------------------------------------------------


def fairness(scribes: Scribes) -> Iterator[Row]:
    person, writer = scribes.person(), scribes.person()
    write_notes(person.user, texts(100))
    time_of_job(person)  # each process loads the model
    time_of_job(person)
    found = median_of(lambda: time_to_found(writer))
    job = median_of(lambda: time_of_job(person), 5)
    with pending_notes(scribes, 10_000):
        title = "a saved note is found, while 10,000 notes of another user wait"
        yield slower(title, found, median_of(lambda: time_to_found(writer)), 2)
        with long_job(scribes, 20_000):
            title = "a job of 100 notes, beside 10,000 waiting notes and a job of 20,000"
            beside = median_of(lambda: time_of_job(person), 5)
            yield slower(title, job, beside, 3)
            started = median_of(lambda: time_to_start(person), 5)
            # Its planning waits for the work in hand: at most a batch, which is as much as this job.
            title = "the part of that time until the job starts"
            yield Row(title, seconds(beside), seconds(started), started / beside, 2 / 3)
            title = "a saved note is found beside these"
            yield slower(title, found, median_of(lambda: time_to_found(writer)), 5)


def long_notes(scribes: Scribes) -> Iterator[Row]:
    person = scribes.person()
    write_notes(person.user, texts(100))
    time_of_job(person)
    found = median_of(lambda: time_to_found(person))
    saved_long_notes(scribes, 8)
    title = "a saved note is found, beside 8 notes of a megabyte of another user"
    yield slower(title, found, median_of(lambda: time_to_found(person), 15), 5)
    oldest = max(age for name, age in heartbeats.ages().items() if name.startswith("queue"))
    limit = 60.0
    yield Row("the oldest heartbeat meanwhile", seconds(limit), seconds(oldest), oldest / limit, 1)


def saving(scribes: Scribes) -> Iterator[Row]:
    """Saving 1,000 notes costs as much as a job over them."""
    people = [scribes.person() for _ in range(4)]
    contents = texts(1000)
    start = time.perf_counter()
    savers = [
        threading.Thread(target=save_notes, args=(person, contents[n :: len(people)]))
        for n, person in enumerate(people)
    ]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()
    saved = time.perf_counter() - start
    wait_until(lambda: not PendingEmbedding.objects.exists())
    embedded = time.perf_counter() - start
    start = time.perf_counter()
    call_command("regenerate_embeddings", "--all-users", verbosity=0)
    jobs = time.perf_counter() - start
    title = "saving 1,000 notes until all are embedded, compared with saving and jobs one by one"
    yield slower(title, saved + jobs, embedded, 1.2)


def save_notes(person: Person, contents: list[str]) -> None:
    for text in contents:
        person.call("POST", "/notes", {"title": "Note", "content": text})


def many_users(scribes: Scribes) -> Iterator[Row]:
    users = User.objects.bulk_create(User(email=f"user{n}@example.com") for n in range(60))
    for user, text in zip(users, texts(len(users), 60 * 100), strict=True):
        write_notes(user, [text[n * 60 : n * 60 + 60] for n in range(100)])
    person = scribes.person()
    write_notes(person.user, texts(100, 60))
    alone = time_of_job(person)
    start = time.perf_counter()
    for user in users:
        enqueue(user, EmbeddingRegeneration.name, {})
    wait_until(lambda: not BackgroundJob.objects.active().exists())
    together = time.perf_counter() - start
    failed = BackgroundJob.objects.exclude(status="completed").count()
    title = "failed jobs of 60 users at once, each with 10 s of work allowed"
    yield Row(title, f"0 ({seconds(alone)})", f"{failed} ({seconds(together)})", failed, 0)


def all_users(scribes: Scribes) -> Iterator[Row]:
    """`regenerate_embeddings --all-users` over 1,000 users."""
    users = User.objects.bulk_create(User(email=f"user{n}@example.com") for n in range(1000))
    for user, text in zip(users, texts(len(users), 100), strict=True):
        write_notes(user, [text])
    start = time.perf_counter()
    call_command("regenerate_embeddings", "--all-users", verbosity=0)
    taken = time.perf_counter() - start
    completed = BackgroundJob.objects.filter(status="completed", processed_items=1).count()
    lost = len(users) - completed
    yield Row(
        "jobs of 1,000 users that did not complete", "0", f"{lost} ({seconds(taken)})", lost, 0
    )
