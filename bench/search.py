"""Searching 10,000 own passages, among 1,000,000 in all and alone; and the whole request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, cycle
from statistics import median
from typing import Any

import numpy as np
import psycopg
from django.conf import settings
from django.db import connection, transaction

from bench import corpus
from bench.measure import Line, as_fast, at_least, duration, faster, seconds
from bench.web import Client, serving_web, sign_up
from notes import serving
from notes.embedding import encoder
from notes.indexing import EmbeddedNote, save_embedded
from notes.models import Passage
from notes.passages import Span
from notes.search import ranking, understood
from scribes.models import User

OWN_NOTES = 2500
VERSES_PER_NOTE = 4
OTHER_USERS = 99
LIMIT = 10
ROUNDS = 6
ROUNDING = 1e-5
QUESTIONS = settings.BASE_DIR / "tests" / "quality" / "queries.json"

Connection = psycopg.Connection[Any]
Statement = tuple[str, dict[str, Any]]


def run() -> Iterator[Line]:
    with serving_web() as web:
        owner, token = sign_up(web.port, "owner@example.com")
        fill(owner)
        with copied_database("bench_alone") as alone:
            add_others(owner)
            tidy_up(alone)
            with connected(parameters()) as among:
                yield from among_others(owner, among, alone)
                yield from against_the_heap(among)
                yield recall(owner, among)
                yield whole_request(owner, among, Client(web.port, token))


# --- Rows -----------------------------------------------------------------------------------


def fill(owner: User) -> None:
    """Each verse is a passage, with its real vector."""
    verses = corpus.verses()[: OWN_NOTES * VERSES_PER_NOTE]
    groups = [verses[at : at + VERSES_PER_NOTE] for at in range(0, len(verses), VERSES_PER_NOTE)]
    notes = corpus.make_notes(owner, ["\n".join(group) for group in groups])
    vectors = encoder().embed(verses).reshape(len(notes), VERSES_PER_NOTE, -1)
    embedded = [
        EmbeddedNote(note, _spans(group), ["-"] * len(group), own)
        for note, group, own in zip(notes, groups, vectors, strict=True)
    ]
    for at in range(0, len(embedded), 500):
        with transaction.atomic():
            save_embedded(embedded[at : at + 500], serving.default())


def _spans(verses: list[str]) -> list[Span]:
    ends = np.cumsum([len(verse) + 1 for verse in verses]).tolist()
    return [Span(end - len(verse) - 1, end - 1) for verse, end in zip(verses, ends, strict=True)]


COPY_NOTES = """
INSERT INTO notes (user_id, title, content, preacher, tags, scripture_refs, text_hash,
    created_at, updated_at)
SELECT u, title, content, preacher, tags, scripture_refs, text_hash, created_at, updated_at
FROM unnest(%(users)s) u, notes WHERE user_id = %(owner)s
"""
# In any order, as rows come when many people write: a user's are on pages all over the table.
COPY_PASSAGES = """
INSERT INTO passages (note_id, user_id, model_id, current, ordinal, char_start, char_end,
    text_hash, vector)
SELECT copy.id, copy.user_id, model_id, current, ordinal, char_start, char_end,
    passages.text_hash, vector
FROM own passages
JOIN notes mine ON mine.id = note_id
JOIN notes copy ON copy.title = mine.title
ORDER BY random()
"""


def add_others(owner: User) -> None:
    """The same notes and passages for OTHER_USERS more users, and the owner's between them."""
    names = (User(email=f"{number}@example.com") for number in range(OTHER_USERS))
    others = [user.pk for user in User.objects.bulk_create(names)]
    with connection.cursor() as cursor:
        cursor.execute(COPY_NOTES, {"users": others, "owner": owner.pk})
        cursor.execute("CREATE TEMPORARY TABLE own AS SELECT * FROM passages")
        cursor.execute("TRUNCATE passages")
        cursor.execute(COPY_PASSAGES)
        cursor.execute("DROP TABLE own")


@contextmanager
def copied_database(name: str) -> Iterator[Connection]:
    """A connection to a copy of the database as it is now."""
    filled = parameters()["dbname"]
    with connected(parameters() | {"dbname": "postgres"}) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        # One that is in use cannot be copied.
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [filled]
        )
        connection.close()
        server.execute(f"CREATE DATABASE {name} TEMPLATE {filled}".encode())
        try:
            with connected(parameters() | {"dbname": name}) as copy:
                yield copy
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def parameters() -> dict[str, Any]:
    wanted = ("dbname", "host", "port", "user", "password", "options")
    ours = connection.get_connection_params()
    return {key: ours[key] for key in wanted if key in ours}


def connected(parameters: dict[str, Any]) -> closing[Connection]:
    """As Django connects: values are put into the statement here, and nothing is prepared."""
    return closing(
        psycopg.connect(
            **parameters,
            autocommit=True,
            cursor_factory=psycopg.ClientCursor,
            prepare_threshold=None,
        )
    )


def tidy_up(alone: Connection) -> None:
    """As autovacuum does a little later."""
    alone.execute("VACUUM (ANALYZE)")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")


# --- SQL alone ------------------------------------------------------------------------------


def among_others(owner: User, among: Connection, alone: Connection) -> Iterator[Line]:
    for mode in ("meaning", "hybrid"):
        own, peer = compared(among, alone, statements(owner, mode))
        what = f"search by {mode} in 10,000 own passages of 1,000,000, SQL alone"
        yield as_fast(1.2, what, own, "the same passages alone in a database", peer)


COMPARE = """
SELECT min(vector <#> %(vector)s::halfvec) FROM passages
WHERE user_id = %(user)s AND model_id = %(model)s AND current
"""
SCAN = """
SELECT note_id FROM passages WHERE user_id = %(user)s AND model_id = %(model)s AND current
ORDER BY vector <#> %(vector)s::halfvec LIMIT %(limit)s
"""


def against_the_heap(among: Connection) -> Iterator[Line]:
    """The same statements on a table with the same rows in the same order, and the index that one
    would make first."""
    among.execute("CREATE TABLE heap AS SELECT * FROM passages ORDER BY id")
    among.execute("CREATE INDEX ON heap (user_id)")
    among.execute("VACUUM (ANALYZE) heap")
    # Of the heap nine times as many pages are read as of our index. PostgreSQL's memory (128 MB)
    # holds those of one user from both, those of ten from the index, and those of eighty from none.
    for users, whose in {1: "one user", 10: "ten users in turn", 80: "eighty in turn"}.items():
        yield from scan_and_search(among, asked_by(users), whose)


def scan_and_search(among: Connection, searches: list[Statement], whose: str) -> Iterator[Line]:
    scans, compares = ([(sql, values) for _, values in searches] for sql in (SCAN, COMPARE))
    least = median(asked(among, compares * 2)[len(compares) :])
    against = "the same through a B-tree on the user and the heap"
    for what, statements in {"exact scan of": scans, "search by meaning in": searches}.items():
        own, peer = compared(among, among, statements, table="heap")
        yield faster(8, f"{what} 10,000 of 1,000,000 passages, {whose}", own, against, peer, least)


def asked_by(number: int) -> list[Statement]:
    """Each question, asked by one of so many users after the other."""
    turns = zip(cycle(User.objects.order_by("pk")[:number]), questions(), strict=False)
    return [statement(user, text, "meaning") for user, text in turns]


def recall(owner: User, among: Connection) -> Line:
    """Against a product of all vectors in numpy. Of notes that are equally near, any may be named."""
    rows = Passage.objects.filter(user=owner).values_list("note", "vector").order_by("note")
    notes = np.array([note for note, _ in rows])
    vectors = np.array([vector for _, vector in rows], np.float32)
    first_of_note = np.flatnonzero(np.diff(notes, prepend=-1))
    found = 0
    for text in questions():
        query = encoder().embed([text])[0].astype(np.float16).astype(np.float32)
        best = np.sort(np.maximum.reduceat(vectors @ query, first_of_note))[-LIMIT]
        ours = ask(among, statement(owner, text, "meaning"))
        found += sum(bool(similarity >= best - ROUNDING) for _, _, similarity, _ in ours)
    of = LIMIT * len(questions())
    what = f"recall of the nearest {LIMIT}"
    return at_least(1, what, f"{found} of {of}", "all vectors in numpy", f"{of}", found / of)


def questions() -> list[str]:
    return [question["query"] for question in json.loads(QUESTIONS.read_text())]


def statements(owner: User, mode: str) -> list[Statement]:
    return [statement(owner, text, mode) for text in questions()]


def statement(owner: User, text: str, mode: str) -> Statement:
    query, _ = understood(owner, text, mode, None)
    return ranking(query, LIMIT, 0, 0)


def compared(
    mine: Connection, theirs: Connection, statements: list[Statement], table: str = "passages"
) -> list[float]:
    """Median seconds of both; the peer's statements read that table. Each asks them all before the
    other does: what one reads would push what the other reads out of PostgreSQL's memory."""
    peers = [(sql.replace("FROM passages", f"FROM {table}"), values) for sql, values in statements]
    rounds = [(asked(mine, statements), asked(theirs, peers)) for _ in range(ROUNDS)][1:]
    return [median(chain(*times)) for times in zip(*rounds, strict=True)]


def asked(database: Connection, statements: list[Statement]) -> list[float]:
    """Seconds of each."""
    return [seconds(partial(ask, database, statement)) for statement in statements]


def ask(database: Connection, statement: Statement) -> list[tuple[Any, ...]]:
    return database.execute(*statement).fetchall()


# --- The whole request ----------------------------------------------------------------------


def whole_request(owner: User, among: Connection, client: Client) -> Line:
    def request(text: str) -> float:
        body = {"query": text, "limit": LIMIT}
        return seconds(lambda: client.call("POST", "/semantic/search", body))

    def parts(text: str) -> tuple[float, ...]:
        return (
            seconds(lambda: encoder().embed([text])),
            seconds(partial(ask, among, statement(owner, text, "hybrid"))),
            seconds(lambda: client.call("GET", "/bare")),
        )

    times = [(request(text), *parts(text)) for text in questions() * 2][len(questions()) :]
    whole, encode, sql, bare = map(median, zip(*times, strict=True))
    peer = f"encode {duration(encode)} + SQL {duration(sql)} + bare view {duration(bare)}"
    return as_fast(1.3, "POST /semantic/search, hybrid, p50", whole, peer, encode + sql + bare)
