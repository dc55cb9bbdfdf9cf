"""A whole regeneration, worker and database included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from statistics import median

from django.db import connection

from bench import corpus
from bench.encode import matrix_products, model_flop, reference
from bench.jobs import regenerate, resident_mb, worker
from bench.measure import Line, at_least, at_most, duration, in_turn, rate
from bench.peers import plain_loop
from jobs.models import JobBatch
from notes.embedding import encoder
from notes.indexing import passages_of
from notes.models import Note
from scribes.models import User

NOTES = 5000
SIZES = (1000, NOTES, 20_000)
LOOP_NOTES = 500
SHARED_NOTES = 2000
WARM_NOTES = 300
ROUNDS = 3
LOOP = "a plain loop: pages of 100 by OFFSET, one encode and one UPDATE a note"


def run() -> Iterator[Line]:
    users = {size: user_with_notes(size) for size in {*SIZES, SHARED_NOTES}}
    # What this process shares with the workers counts half of theirs, so it is loaded first.
    encoder().embed(["In the beginning"])
    reference()
    few = user_with_notes(WARM_NOTES)
    with worker("worker") as process:
        regenerate(few)  # both processes load the model
        regenerate(users[SIZES[0]])
        before = resident_mb(process)
        times = jobs_and_peers(users)
        grown = resident_mb(process) - before
        yield from against_the_encoder_and_the_loop(users[NOTES], times)
        yield from growth(times)
        what = f"the worker's memory grows with {ROUNDS} times {', '.join(map('{:,}'.format, SIZES))} notes"
        after = f"after the first {SIZES[0]:,}"
        yield at_most(50, what, f"{grown:.0f} MB", after, f"{before:.0f} MB", grown)
        yield from nothing_stale(users[NOTES], times["job", NOTES])
    yield from shared(users[SHARED_NOTES], few)


def user_with_notes(number: int) -> User:
    user = User.objects.create_user(f"{User.objects.count()}@example.com")
    corpus.make_notes(user, corpus.texts(number, seed=number))
    return user


def passages(user: User) -> list[str]:
    return [
        text for note in Note.objects.for_user(user) for text in passages_of(note, encoder())[1]
    ]


Times = dict[tuple[str, int], float]


def jobs_and_peers(users: dict[int, User]) -> Times:
    """Median seconds of each, by its name and how much it does: notes, or FLOP. The loop gets fewer
    notes, to come to an end: its time is in proportion to them."""
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
    """With what autovacuum would do a little later, beside what is measured next."""
    regenerate(user)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")


def speed(times: Times, work: str) -> dict[int, float]:
    """How many a second."""
    return {number: number / time for (name, number), time in times.items() if name == work}


def against_the_encoder_and_the_loop(user: User, times: Times) -> Iterator[Line]:
    texts = passages(user)
    what = f"regenerate {NOTES:,} notes ({len(texts):,} passages)"
    ours, pure = speed(times, "job")[NOTES], speed(times, "encode")[NOTES]
    (loop,), (peak,) = speed(times, "loop").values(), speed(times, "product").values()
    yield at_least(
        0.9,
        *(what, rate(ours, "notes"), "encode the same passages, all at once"),
        *(rate(pure, "notes"), ours / pure),
    )
    line = at_least(5, what, rate(ours, "notes"), LOOP, rate(loop, "notes"), ours / loop)
    # As the loop has them: not in passages, and cut off where the model ends.
    whole = model_flop([note.content for note in Note.objects.for_user(user)])
    yield line._replace(limit=max(NOTES / (whole / peak), ours) / loop)


def growth(times: Times) -> Iterator[Line]:
    rates = speed(times, "job")
    smallest = rates[SIZES[0]]
    for size in SIZES[1:]:
        yield at_least(
            0.9,
            *(f"regenerate {size:,} notes", rate(rates[size], "notes"), f"{SIZES[0]:,} notes"),
            *(rate(smallest, "notes"), rates[size] / smallest),
        )


def nothing_stale(user: User, full: float) -> Iterator[Line]:
    job, _ = regenerate(user, only_stale=True)
    stale = median(in_turn(lambda: regenerate(user, only_stale=True), rounds=5)[0])
    batches = JobBatch.objects.filter(job=job).count()
    what = f"only-stale run over {NOTES:,} notes with nothing stale"
    yield at_least(50, what, duration(stale), "full run", duration(full), full / stale)
    yield at_most(0, "the same, batches handed to the model", f"{batches}", "", "", batches)


# One process each: with all threads, and with half of them, which is what a worker of two has.
WHOLE = ("--pool", "solo", "--concurrency", "1")
HALF = ("--pool", "solo", "--concurrency", "2")
IDLE = ("--queues", "reminders")


def shared(user: User, few: User) -> Iterator[Line]:
    """Workers start and load the model before each measurement; that is not in it."""
    setups: dict[str, list[tuple[str, ...]]] = {
        "one": [WHOLE],
        "two": [HALF, HALF],
        "idle": [HALF, HALF, IDLE],
    }
    times: dict[str, list[float]] = {name: [] for name in setups}
    for _ in range(ROUNDS):
        for name, workers in setups.items():
            times[name].append(with_workers(user, few, workers))
    one, two, idle = (median(times[name]) for name in setups)
    what = f"regenerate {SHARED_NOTES:,} notes with two workers, half the threads each"
    yield at_least(0.95, what, duration(two), "one worker", duration(one), one / two)
    what = f"regenerate {SHARED_NOTES:,} notes with a third, idle worker"
    yield at_least(0.95, what, duration(idle), "without it", duration(two), two / idle)


def with_workers(user: User, few: User, workers: list[tuple[str, ...]]) -> float:
    with ExitStack() as stack:
        for number, options in enumerate(workers):
            stack.enter_context(worker(f"worker-{number}", *options))
        regenerate(few)
        return regenerate(user)[1]
