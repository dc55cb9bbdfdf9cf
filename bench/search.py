"""Searches of one user with 10,000 passages among 1,000,000: SQL only, and the whole request."""

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
from bench.measure import Line, at_least, duration, faster, not_slower, seconds
from bench.web import Client, sign_up, web_process
from notes.embeddings.chunking import Span
from notes.embeddings.encoder import encoder
from notes.embeddings.pipeline import EmbeddedNote
from notes.embeddings.rollout import default_model
from notes.embeddings.store import save_embedded
from notes.models import Passage
from notes.search.query import HYBRID, SEMANTIC, parse_query
from notes.search.ranking import ranking_statement
from scribes.models import User

OWN_NOTES = 2500
VERSES_PER_NOTE = 4
OTHER_USERS = 99
OWN_PASSAGES = OWN_NOTES * VERSES_PER_NOTE
SIZE = f"{OWN_PASSAGES:,} of {OWN_PASSAGES * (OTHER_USERS + 1):,} passages"
LIMIT = 10
ROUNDS = 6
ROUNDING = 1e-5
QUERIES = settings.BASE_DIR / "tests" / "quality" / "queries.json"

Connection = psycopg.Connection[Any]
Statement = tuple[str, dict[str, Any]]


def run() -> Iterator[Line]:
    with web_process() as web:
        owner, token = sign_up(web.port, "owner@example.com")
        fill(owner)
        with copied_database("bench_alone") as alone:
            add_other_users(owner)
            vacuum(alone)
            with connected(parameters()) as shared:
                yield from among_other_users(owner, shared, alone)
                yield from against_the_heap(shared)
                yield recall(owner, shared)
                yield whole_request(owner, shared, Client(web.port, token))


# --- Rows -----------------------------------------------------------------------------------


def fill(owner: User) -> None:
    """Create the owner's notes. Each verse is a passage with its real vector."""
    verses = corpus.verses()[:OWN_PASSAGES]
    groups = [verses[at : at + VERSES_PER_NOTE] for at in range(0, len(verses), VERSES_PER_NOTE)]
    notes = corpus.make_notes(owner, ["\n".join(group) for group in groups])
    vectors = encoder().embed(verses).reshape(len(notes), VERSES_PER_NOTE, -1)
    embedded = [
        EmbeddedNote(note, _spans(group), ["-"] * len(group), own)
        for note, group, own in zip(notes, groups, vectors, strict=True)
    ]
    for at in range(0, len(embedded), 500):
        with transaction.atomic():
            save_embedded(embedded[at : at + 500], default_model())


def _spans(verses: list[str]) -> list[Span]:
    ends = np.cumsum([len(verse) + 1 for verse in verses]).tolist()
    return [Span(end - len(verse) - 1, end - 1) for verse, end in zip(verses, ends, strict=True)]


COPY_NOTES = """
INSERT INTO notes (user_id, title, content, preacher, tags, scripture_refs, text_hash,
    created_at, updated_at)
SELECT u, title, content, preacher, tags, scripture_refs, text_hash, created_at, updated_at
FROM unnest(%(users)s) u, notes WHERE user_id = %(owner)s
"""
# In random order, as when many people write at once: a user's rows are scattered over the table.
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


def add_other_users(owner: User) -> None:
    """Copy the owner's notes and passages to OTHER_USERS users, and shuffle all passages."""
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
    """A connection to a copy of the database as it is now. The copy is deleted at the end."""
    original = parameters()["dbname"]
    with connected(parameters() | {"dbname": "postgres"}) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        # A database with open connections cannot be copied.
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [original]
        )
        connection.close()
        server.execute(f"CREATE DATABASE {name} TEMPLATE {original}".encode())
        try:
            with connected(parameters() | {"dbname": name}) as copy:
                yield copy
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def parameters() -> dict[str, Any]:
    names = ("dbname", "host", "port", "user", "password", "options")
    ours = connection.get_connection_params()
    return {key: ours[key] for key in names if key in ours}


def connected(parameters: dict[str, Any]) -> closing[Connection]:
    """A connection like Django's: the client fills in the values, and prepares nothing."""
    return closing(
        psycopg.connect(
            **parameters,
            autocommit=True,
            cursor_factory=psycopg.ClientCursor,
            prepare_threshold=None,
        )
    )


def vacuum(alone: Connection) -> None:
    """Vacuum both databases, as autovacuum would a little later."""
    alone.execute("VACUUM (ANALYZE)")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE)")


# --- SQL only -------------------------------------------------------------------------------


def among_other_users(owner: User, shared: Connection, alone: Connection) -> Iterator[Line]:
    for mode in (SEMANTIC, HYBRID):
        ours, theirs = compared(shared, alone, statements(owner, mode))
        title = f"{mode} search in {SIZE}, SQL only"
        peer = f"a database with only these {OWN_PASSAGES:,} passages"
        yield not_slower(1.2, title, ours, peer, theirs)


COMPARE = """
SELECT min(vector <#> %(vector)s::halfvec) FROM passages
WHERE user_id = %(user)s AND model_id = %(model)s AND current
"""
SCAN = """
SELECT note_id FROM passages WHERE user_id = %(user)s AND model_id = %(model)s AND current
ORDER BY vector <#> %(vector)s::halfvec LIMIT %(limit)s
"""


def against_the_heap(shared: Connection) -> Iterator[Line]:
    """The same statements on a table with the same rows in the same order, but with the obvious
    index: a B-tree on the user."""
    shared.execute("CREATE TABLE heap AS SELECT * FROM passages ORDER BY id")
    shared.execute("CREATE INDEX ON heap (user_id)")
    shared.execute("VACUUM (ANALYZE) heap")
    # Nine times as many pages are read of the heap as of our index. PostgreSQL's memory (128 MB)
    # holds the pages of one user from both, of ten users from the index only, and of eighty from
    # neither.
    for number in (1, 10, 80):
        users = "1 user" if number == 1 else f"{number} users in turn"
        yield from scan_and_search(shared, queries_of(number), users)


def scan_and_search(shared: Connection, searches: list[Statement], users: str) -> Iterator[Line]:
    scans, compares = ([(sql, values) for _, values in searches] for sql in (SCAN, COMPARE))
    minimum = median(asked(shared, compares * 2)[len(compares) :])
    peer = "the same with a B-tree on the user and the heap"
    for name, statements in {"exact scan of": scans, "semantic search in": searches}.items():
        ours, theirs = compared(shared, shared, statements, table="heap")
        yield faster(8, f"{name} {SIZE}, {users}", ours, peer, theirs, minimum)


def queries_of(number: int) -> list[Statement]:
    """All queries, each of the next of this number of users."""
    turns = zip(cycle(User.objects.order_by("pk")[:number]), queries(), strict=False)
    return [statement(user, text, SEMANTIC) for user, text in turns]


def recall(owner: User, shared: Connection) -> Line:
    """Compared with a product of all vectors in numpy. Of equally near notes, any one is right."""
    rows = Passage.objects.filter(user=owner).values_list("note", "vector").order_by("note")
    notes = np.array([note for note, _ in rows])
    vectors = np.array([vector for _, vector in rows], np.float32)
    first_of_note = np.flatnonzero(np.diff(notes, prepend=-1))
    found = 0
    for text in queries():
        query = encoder().embed([text])[0].astype(np.float16).astype(np.float32)
        worst = np.sort(np.maximum.reduceat(vectors @ query, first_of_note))[-LIMIT]
        ours = ask(shared, statement(owner, text, SEMANTIC))
        found += sum(bool(similarity >= worst - ROUNDING) for _, _, similarity, _ in ours)
    total = LIMIT * len(queries())
    title = f"recall of the nearest {LIMIT}"
    return at_least(
        1, title, f"{found} of {total}", "all vectors in numpy", f"{total}", found / total
    )


def queries() -> list[str]:
    return [query["query"] for query in json.loads(QUERIES.read_text())]


def statements(owner: User, mode: str) -> list[Statement]:
    return [statement(owner, text, mode) for text in queries()]


def statement(owner: User, text: str, mode: str) -> Statement:
    query, _ = parse_query(owner, text, mode, None)
    return ranking_statement(query, LIMIT, 0, 0)


def compared(
    ours: Connection, theirs: Connection, statements: list[Statement], table: str = "passages"
) -> list[float]:
    """The median seconds of both; the peer's statements read `table`.

    Each side runs all statements before the other does: otherwise the pages of one side would push
    those of the other out of PostgreSQL's memory.
    """
    peers = [(sql.replace("FROM passages", f"FROM {table}"), values) for sql, values in statements]
    rounds = [(asked(ours, statements), asked(theirs, peers)) for _ in range(ROUNDS)][1:]
    return [median(chain(*times)) for times in zip(*rounds, strict=True)]


def asked(database: Connection, statements: list[Statement]) -> list[float]:
    """The seconds of each statement."""
    return [seconds(partial(ask, database, statement)) for statement in statements]


def ask(database: Connection, statement: Statement) -> list[tuple[Any, ...]]:
    return database.execute(*statement).fetchall()


# --- The whole request ----------------------------------------------------------------------


def whole_request(owner: User, shared: Connection, client: Client) -> Line:
    def request(text: str) -> float:
        body = {"query": text, "limit": LIMIT}
        return seconds(lambda: client.call("POST", "/semantic/search", body))

    def parts(text: str) -> tuple[float, ...]:
        return (
            seconds(lambda: encoder().embed([text])),
            seconds(partial(ask, shared, statement(owner, text, HYBRID))),
            seconds(lambda: client.call("GET", "/bare")),
        )

    # The first pass over the queries does not count.
    times = [(request(text), *parts(text)) for text in queries() * 2][len(queries()) :]
    whole, encode, sql, bare = map(median, zip(*times, strict=True))
    peer = f"encode {duration(encode)} + SQL {duration(sql)} + bare view {duration(bare)}"
    title = "POST /semantic/search, hybrid, p50"
    return not_slower(1.3, title, whole, peer, encode + sql + bare)
