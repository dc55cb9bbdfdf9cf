"""What a request reads is bounded by what its user has, whatever others have, and whether PostgreSQL
has analysed the tables or not."""

from __future__ import annotations

from itertools import product

import pytest
from django.db import connection
from rest_framework.test import APIClient

from notes.models import Note, text_hash
from scribes.models import User
from tests.helpers.plans import most_rows_read

OWN, OTHERS = 400, 8000
WORDS = "grace peace water faith hope love light word truth way"
SEARCHES = (
    WORDS,
    f"{WORDS} -zzz",
    f"{WORDS} -note",
    f'{WORDS} "grace upon grace"',
    "the and of",
)
LISTS = (
    "/notes?limit=100",
    "/notes?ordering=title&limit=10",
    "/notes?tags=tag 3&preacher=x",
    "/notes?scripture=John 3:16",
    "/notes?date_from=2020-01-01",
    "/semantic/status",
    "/jobs",
    "/reminders",
    "/notifications",
)


def write_notes(user: User, count: int) -> None:
    notes = [
        Note(user=user, title=f"Note {n}", content=f"{WORDS} {n}", tags=[f"tag {n % 7}"])
        for n in range(count)
    ]
    for note in notes:
        note.text_hash = text_hash(note)
    Note.objects.bulk_create(notes, batch_size=1000)


@pytest.fixture(params=["fresh", "analysed"])
def tables(request: pytest.FixtureRequest, alice: User, bob: User) -> None:
    write_notes(bob, OTHERS)
    write_notes(alice, OWN)
    if request.param == "analysed":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


@pytest.mark.usefixtures("tables")
def test_search_reads_each_own_note_a_few_times(api: APIClient):
    """Not once more for each match, and none of another user."""
    for mode, query in product(("keyword", "hybrid"), SEARCHES):
        body = {"query": query, "mode": mode, "limit": 100}
        assert most_rows_read(lambda b=body: api.post("/semantic/search", b)) <= 4 * OWN, body  # type: ignore[misc]


@pytest.mark.usefixtures("tables")
def test_list_reads_own_rows_only(api: APIClient):
    for path in LISTS:
        assert most_rows_read(lambda p=path: api.get(p)) <= 4 * OWN, path  # type: ignore[misc]
