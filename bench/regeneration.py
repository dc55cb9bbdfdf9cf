"""A whole regeneration, worker and database included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median

from bench import corpus
from bench.encode import matrix_products, model_flop, reference
from bench.jobs import regenerate, resident_mb, worker
from bench.measure import Line, at_least, at_most, duration, in_turn, rate
from bench.peers import original
from jobs.models import JobBatch
from notes.embedding import encoder
from notes.indexing import passages_of
from notes.models import Note
from scribes.models import User

NOTES = 5000
SIZES = (1000, 5000, 20_000)
LOOP_NOTES = 500
SHARED_NOTES = 2000
WARM_NOTES = 300
ROUNDS = 3
LOOP = "the original guide's loop: pages of 100 by OFFSET, one encode and one UPDATE a note"


def run() -> Iterator[Line]:
    users = {size: user_with_notes(size) for size in {*SIZES, NOTES, SHARED_NOTES}}
    few = user_with_notes(WARM_NOTES)
    with worker("worker") as process:
        regenerate(few)  # both processes load the model
        yield from against_the_encoder_and_the_loop(users[NOTES])
        yield from nothing_stale(users[NOTES])
        yield from growth(users, lambda: resident_mb(process))
    yield from shared(users[SHARED_NOTES], few)


def user_with_notes(number: int) -> User:
    user = User.objects.create_user(f"{User.objects.count()}@example.com")
    corpus.make_notes(user, corpus.texts(number, seed=number))
    return user


def passages(user: User) -> list[str]:
    return [
        text for note in Note.objects.for_user(user) for text in passages_of(note, encoder())[1]
    ]


def against_the_encoder_and_the_loop(user: User) -> Iterator[Line]:
    """The loop gets fewer notes, to come to an end: its time is in proportion to them."""
    texts = passages(user)
    encoder().embed(texts[:200])
    model = reference()
    original.prepare(user, LOOP_NOTES)
    product, flop = matrix_products()
    encode, job, loop, products = map(
        median,
        in_turn(
            lambda: encoder().embed(texts),
            lambda: regenerate(user),
            lambda: original.regenerate(model),
            product,
            rounds=ROUNDS,
        ),
    )
    what = f"regenerate {NOTES:,} notes ({len(texts):,} passages)"
    ours, pure, theirs = NOTES / job, NOTES / encode, LOOP_NOTES / loop
    at_the_peak = NOTES / (model_flop(texts) * products / flop)
    yield at_least(
        0.9,
        *(what, rate(ours, "notes"), "encode the same passages, all at once"),
        *(rate(pure, "notes"), ours / pure),
    )
    line = at_least(5, what, rate(ours, "notes"), LOOP, rate(theirs, "notes"), ours / theirs)
    yield line._replace(limit=max(at_the_peak, ours) / theirs)


def nothing_stale(user: User) -> Iterator[Line]:
    full = median(in_turn(lambda: regenerate(user), rounds=1)[0])
    job, _ = regenerate(user, only_stale=True)
    stale = median(in_turn(lambda: regenerate(user, only_stale=True), rounds=5)[0])
    batches = JobBatch.objects.filter(job=job).count()
    what = f"only-stale run over {NOTES:,} notes with nothing stale"
    yield at_least(50, what, duration(stale), "full run", duration(full), full / stale)
    yield at_most(0, "the same, batches handed to the model", f"{batches}", "", "", batches)


def growth(users: dict[int, User], memory: Callable[[], float]) -> Iterator[Line]:
    """The sizes in turn, and the largest last, so that the memory tells of it."""
    regenerate(users[SIZES[0]])
    before = memory()
    works = [lambda size=size: regenerate(users[size]) for size in SIZES]
    times = [median(column) for column in in_turn(*works, rounds=ROUNDS)]
    grown = memory() - before
    rates = {size: size / time for size, time in zip(SIZES, times, strict=True)}
    for size in SIZES[1:]:
        what = f"regenerate {size:,} notes"
        smallest = rates[SIZES[0]]
        yield at_least(
            0.9,
            *(what, rate(rates[size], "notes"), f"{SIZES[0]:,} notes"),
            *(rate(smallest, "notes"), rates[size] / smallest),
        )
    what = f"the worker's memory grows with {SIZES[-1]:,} notes"
    yield at_most(50, what, f"{grown:.0f} MB", f"{SIZES[0]:,} notes", f"{before:.0f} MB", grown)


# One process each: with all threads, and with half of them, which is what a worker of two has.
WHOLE = ("--concurrency", "1")
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
