"""Whole regenerations, including the worker and the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from statistics import median

from django.db import connection

from bench import corpus
from bench.encode import matrix_products, model_flop, reference
from bench.jobs import regenerate, worker_process
from bench.measure import Line, at_least, at_most, duration, in_turn, rate
from bench.peers import plain_loop
from jobs.models import JobBatch
from notes.embeddings.encoder import encoder
from notes.embeddings.pipeline import passages_of
from notes.models import Note
from scribes.models import User

NOTES = 5000
SIZES = (1000, NOTES, 20_000)
LOOP_NOTES = 500
SHARED_NOTES = 2000
WARM_UP_NOTES = 300
ROUNDS = 3
LOOP = "a plain loop: pages of 100 by OFFSET, one encode and one UPDATE per note"


def run() -> Iterator[Line]:
    users = {size: user_with_notes(size) for size in {*SIZES, SHARED_NOTES}}
    # Memory that this process shares with the workers counts half, so it must be loaded before.
    encoder().embed(["In the beginning"])
    reference()
    warm_up_user = user_with_notes(WARM_UP_NOTES)
    with worker_process("worker") as worker:
        regenerate(warm_up_user)  # both processes load the model
        regenerate(users[SIZES[0]])
        before = worker.pss_mb()
        times = time_jobs_and_peers(users)
        growth = worker.pss_mb() - before
        yield from speed_against_peers(users[NOTES], times)
        yield from speed_by_size(times)
        yield memory_growth(growth, before)
        yield from nothing_stale(users[NOTES], times["job", NOTES])
    yield from several_workers(users[SHARED_NOTES], warm_up_user)


def user_with_notes(number: int) -> User:
    user = User.objects.create_user(f"{User.objects.count()}@example.com")
    corpus.make_notes(user, corpus.texts(number, seed=number))
    return user


def passages(user: User) -> list[str]:
    return [
        text for note in Note.objects.for_user(user) for text in passages_of(note, encoder())[1]
    ]


Times = dict[tuple[str, int], float]
"""Median seconds by (name, amount): a number of notes, or of floating-point operations."""


def time_jobs_and_peers(users: dict[int, User]) -> Times:
    """The loop gets fewer notes, because it is slow: its time is proportional to their number."""
    texts, model = passages(users[NOTES]), reference()
    encoder().embed(texts[:200])
    plain_loop.prepare(users[NOTES], LOOP_NOTES)
    product, flop = matrix_products()
    works: dict[tuple[str, int], Callable[[], object]] = {
        ("loop", LOOP_NOTES): lambda: plain_loop.regenerate(model),
        ("product", flop): product,
        ("encode", NOTES): lambda: encoder().embed(texts),
    }
    for size in SIZES:
        works["job", size] = partial(regenerate_and_vacuum, users[size])
    columns = in_turn(*works.values(), rounds=ROUNDS)
    return {name: median(column) for name, column in zip(works, columns, strict=True)}


def regenerate_and_vacuum(user: User) -> None:
    """Vacuum within the measurement: autovacuum would do so a little later, during another one."""
    regenerate(user)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")


def speeds(times: Times, work: str) -> dict[int, float]:
    """The amount per second, by amount."""
    return {amount: amount / time for (name, amount), time in times.items() if name == work}


def speed_against_peers(user: User, times: Times) -> Iterator[Line]:
    texts = passages(user)
    title = f"regenerate {NOTES:,} notes ({len(texts):,} passages)"
    ours, encode = speeds(times, "job")[NOTES], speeds(times, "encode")[NOTES]
    (loop,), (peak,) = speeds(times, "loop").values(), speeds(times, "product").values()
    yield at_least(
        0.9,
        *(title, rate(ours, "notes"), "encode the same passages, all at once"),
        *(rate(encode, "notes"), ours / encode),
    )
    line = at_least(5, title, rate(ours, "notes"), LOOP, rate(loop, "notes"), ours / loop)
    # As the loop encodes them: whole notes, cut off at the model's maximum.
    flop = model_flop([note.content for note in Note.objects.for_user(user)])
    yield line._replace(limit=max(NOTES / (flop / peak), ours) / loop)


def speed_by_size(times: Times) -> Iterator[Line]:
    rates = speeds(times, "job")
    smallest = rates[SIZES[0]]
    peer, theirs = f"regenerate {SIZES[0]:,} notes", rate(smallest, "notes")
    for size in SIZES[1:]:
        title, ours = f"regenerate {size:,} notes", rate(rates[size], "notes")
        yield at_least(0.9, title, ours, peer, theirs, rates[size] / smallest)


def memory_growth(growth: float, before: float) -> Line:
    sizes = ", ".join(f"{size:,}" for size in SIZES)
    title = f"memory growth of the worker in {ROUNDS} rounds of {sizes} notes"
    peer = f"its memory after the first {SIZES[0]:,} notes"
    return at_most(50, title, f"{growth:.0f} MB", peer, f"{before:.0f} MB", growth)


def nothing_stale(user: User, full: float) -> Iterator[Line]:
    job, _ = regenerate(user, only_stale=True)
    stale = median(in_turn(lambda: regenerate(user, only_stale=True), rounds=5)[0])
    batches = JobBatch.objects.filter(job=job).count()
    title = f"only_stale run over {NOTES:,} notes, none of them stale"
    yield at_least(50, title, duration(stale), "full run", duration(full), full / stale)
    yield at_most(0, "batches that this run gives to the model", f"{batches}", "", "", batches)


# One process each: with all threads, or with half of them, as in a worker with two processes.
ALL_THREADS = ("--pool", "solo", "--concurrency", "1")
HALF_THREADS = ("--pool", "solo", "--concurrency", "2")
IDLE = ("--queues", "reminders")


def several_workers(user: User, warm_up_user: User) -> Iterator[Line]:
    setups: dict[str, list[tuple[str, ...]]] = {
        "one": [ALL_THREADS],
        "two": [HALF_THREADS, HALF_THREADS],
        "idle": [HALF_THREADS, HALF_THREADS, IDLE],
    }
    times: dict[str, list[float]] = {name: [] for name in setups}
    for _ in range(ROUNDS):
        for name, workers in setups.items():
            times[name].append(with_workers(user, warm_up_user, workers))
    one, two, idle = (median(times[name]) for name in setups)
    title = f"regenerate {SHARED_NOTES:,} notes with two workers, half the threads each"
    yield at_least(0.95, title, duration(two), "one worker", duration(one), one / two)
    title = f"regenerate {SHARED_NOTES:,} notes with a third, idle worker"
    yield at_least(0.95, title, duration(idle), "without it", duration(two), two / idle)


def with_workers(user: User, warm_up_user: User, workers: list[tuple[str, ...]]) -> float:
    """Seconds of a regeneration, after the workers have started and loaded the model."""
    with ExitStack() as stack:
        for number, options in enumerate(workers):
            stack.enter_context(worker_process(f"worker-{number}", *options))
        regenerate(warm_up_user)
        return regenerate(user)[1]
