"""Requests: what one client's dearest requests cost the others, and what long notes cost in memory."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from statistics import median, quantiles
from typing import Any

import requests
from django.utils import timezone

from jobs.models import BackgroundJob
from notes.models import Note
from reminders.models import Channel, Reminder
from scribes.models import User
from tests.load.deployment import Person, Scribes, wait_until, write_notes
from tests.load.embedding import MEGABYTE, texts
from tests.load.repeat import repeat
from tests.load.report import Row, seconds, slower

WORDS = "grace peace water faith hope love light word truth way"
REFERENCES = "; ".join(f"Isa {n % 66 + 1}:{n % 7 + 1}-{n % 7 + 3}" for n in range(160))[:1990]
MEGABYTES_OF_GROWTH = 200


def timed(call: Callable[[], object], rounds: int = 5) -> float:
    """The median seconds, after one round that does not count."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


# --- Dear requests by themselves ------------------------------------------------------------


def dear_requests(scribes: Scribes) -> Iterator[Row]:
    person = scribes.person()
    write_notes(person.user, [f"{WORDS} {text}" for text in texts(10_000, 100)])

    def search(query: str) -> Callable[[], object]:
        body = {"query": query, "mode": "keyword"}
        return lambda: person.call("POST", "/semantic/search", body)

    title = "ten words in 10,000 notes, with -zzz"
    yield slower(title, timed(search(WORDS)), timed(search(f"{WORDS} -zzz")), 2)
    plain, full = (person_with_references(scribes, text) for text in ("", REFERENCES))
    title = "GET /notes?limit=100, each note with 1,990 characters of references"
    yield slower(title, timed(page_of(plain)), timed(page_of(full)), 2)
    short, long = (
        feed_of(scribes.person(), text) for text in ("Be still.", texts(1, MEGABYTE - 100)[0])
    )
    title = "the calendar of 1,000 reminders, on a note of a megabyte"
    yield slower(title, timed(reading(short)), timed(reading(long)), 2)


def person_with_references(scribes: Scribes, references: str) -> Person:
    person = scribes.person()
    for _ in range(100):
        person.call("POST", "/notes", {"title": "Note", "scripture_refs": references})
    return person


def page_of(person: Person) -> Callable[[], object]:
    return lambda: person.call("GET", "/notes?limit=100")


def reading(url: str) -> Callable[[], object]:
    return lambda: requests.get(url, timeout=300)


def feed_of(person: Person, content: str) -> str:
    """The URL of a calendar with 1,000 reminders on one note."""
    (note,) = write_notes(person.user, [content])
    write_reminders(person.user, note, 1000)
    return str(person.call("GET", "/reminders/preferences")["feed_url"])


def write_reminders(user: User, note: Note, number: int) -> None:
    start = timezone.now().replace(microsecond=0) + timedelta(days=30)
    Reminder.objects.bulk_create(
        Reminder(
            user=user,
            note=note,
            scheduled_at=start + timedelta(hours=n),
            start_date=start.date(),
            start_time=start.time(),
            time_zone="Europe/Berlin",
            rrule="FREQ=WEEKLY",
            channels=[Channel.IN_APP],
        )
        for n in range(number)
    )


# --- Dear requests and everybody else --------------------------------------------------------


def busy_neighbour(scribes: Scribes) -> Iterator[Row]:
    """GET /jobs of one user, while another one sends dear requests as fast as one client can."""
    person, other = scribes.person(), scribes.person()
    write_jobs(person.user, 50)
    write_notes(other.user, [f"{WORDS} {text}" for text in texts(5000, 100)])
    long_note = texts(1, MEGABYTE - 100)[0]
    feed = feed_of(other, "Be still.")
    requests_of_other: dict[str, tuple[str, str, Any]] = {
        "saves notes of a megabyte": ("POST", "/notes", {"title": "Long", "content": long_note}),
        "saves notes full of references": (
            *("POST", "/notes"),
            {"title": "References", "content": (REFERENCES + "\n") * 50},
        ),
        "searches ten words with -minus": (
            *("POST", "/semantic/search"),
            {"query": f"{WORDS} -zzz", "limit": 100},
        ),
        "reads pages of 100 notes": ("GET", "/notes?limit=100", None),
        "reads a calendar of 1,000 reminders": ("GET", feed, None),
        "asks for the state of 5,000 notes": ("GET", "/semantic/status", None),
    }
    wake_all_threads(person)
    alone = p99_of_jobs(person)
    for name, request in requests_of_other.items():
        with repeating(other, *request):
            yield slower(
                f"GET /jobs, p99, while another user {name}", alone, p99_of_jobs(person), 3
            )


def write_jobs(user: User, number: int) -> None:
    now = timezone.now()
    BackgroundJob.objects.bulk_create(
        BackgroundJob(
            user=user, job_type="embedding_regeneration", status="completed",
            created_at=now, dispatched_at=now, started_at=now, completed_at=now,
        )
        for _ in range(number)
    )  # fmt: skip


def wake_all_threads(person: Person) -> None:
    """Each thread of the web processes connects to the database with its first request."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: read_jobs(person), range(320)))


def read_jobs(person: Person) -> None:
    """Over a new connection, which any of the web processes may get."""
    answer = requests.get(f"{person.url}/jobs", headers=person.session.headers, timeout=60)
    assert answer.ok


def p99_of_jobs(person: Person, number: int = 300) -> float:
    times = []
    for _ in range(number):
        start = time.perf_counter()
        read_jobs(person)
        times.append(time.perf_counter() - start)
        time.sleep(0.005)
    return quantiles(times, n=100)[98]


@contextmanager
def repeating(person: Person, method: str, path: str, body: Any) -> Iterator[None]:
    """A process of its own sends this request again and again."""
    url = path if path.startswith("http") else person.url + path
    arguments = method, url, dict(person.session.headers), body
    process = multiprocessing.get_context("spawn").Process(target=repeat, args=arguments)
    process.start()
    time.sleep(2)
    yield
    process.terminate()
    process.join()


# --- Memory ---------------------------------------------------------------------------------


def memory(scribes: Scribes) -> Iterator[Row]:
    person = scribes.person()
    contents = [f"{WORDS} {text}" for text in texts(100, MEGABYTE - 200)]
    write_notes(person.user, contents)
    body = {"query": WORDS, "mode": "keyword", "limit": 100}
    small = {**body, "limit": 1}

    def search(_: int) -> int:
        headers = person.session.headers
        url = f"{scribes.url}/semantic/search"
        return len(requests.post(url, json=body, headers=headers, timeout=300).json()["results"])

    for _ in range(20):
        person.call("POST", "/semantic/search", small)
    before = resident(scribes)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(search, range(16))) == {100}
    growth = resident(scribes) - before
    title = "memory that web gains by 8 searches at once, each with 100 hits of a megabyte"
    limit = MEGABYTES_OF_GROWTH
    yield Row(title, f"{limit} MB allowed", f"{growth:.0f} MB", growth / limit, 1)


def resident(scribes: Scribes) -> float:
    return sum(process.memory_info().rss for process in scribes.web_processes()) / 2**20


# --- Slow clients ---------------------------------------------------------------------------

STALLED = {
    "nothing": b"",
    "half a header": b"GET /notes HTTP/1.1\r\nHost: localhost\r\nX-Half: ",
    "half a body": b"POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
}


def slow_clients(scribes: Scribes) -> Iterator[Row]:
    live = f"{scribes.url}/health/live"
    alone = timed(lambda: requests.get(live, timeout=60))
    for name, data in STALLED.items():
        with ExitStack() as sockets:
            for _ in range(500):
                client = sockets.enter_context(
                    socket.create_connection(("127.0.0.1", scribes.port))
                )
                client.sendall(data)
            time.sleep(1)
            slow = timed(lambda: requests.get(live, timeout=300), 3)
        title = f"GET /health/live beside 500 clients that send {name}, limit 1 s"
        yield Row(title, seconds(alone), seconds(slow), slow, 1)
    wait_until(lambda: requests.get(live, timeout=60).ok)
