"""What a request reads is bounded by what its user has, whatever others have, and whatever PostgreSQL
knows of the tables."""

from __future__ import annotations

from itertools import product
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from rest_framework.test import APIClient

from notes.embeddings.rollout import default_model, encoder_of
from notes.models import Note, text_hash
from notes.search.hits import HEADING_DISTANCE_CHARACTERS
from reminders.models import Reminder
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.plans import most_rows_read, plans_of

OWN, OTHERS = 400, 8000
WORDS = "grace peace water faith hope love light word truth way"
# What the notes of a user have: passages, references, reminders and what was sent for them.
FILL = """
INSERT INTO passages (note_id, user_id, model_id, ordinal, char_start, char_end, current, text_hash,
    vector)
SELECT id, user_id, %(model)s, 0, 0, 10, true, '', %(vector)s::halfvec FROM notes WHERE user_id = %(user)s;
INSERT INTO scripture_references (note_id, user_id, start_verse, end_verse)
SELECT id, user_id, 43003016, 43003017 FROM notes WHERE user_id = %(user)s;
INSERT INTO reminders (user_id, note_id, status, scheduled_at, start_date, start_time, time_zone,
    rrule, channels, message, snooze_link, error, request_id, created_at, updated_at)
SELECT user_id, id, 'pending', now() + id * interval '1 minute', now(), '00:00', 'UTC', '',
    '{email}', '', '', '', '', now(), now() FROM notes WHERE user_id = %(user)s;
INSERT INTO reminder_deliveries (id, reminder_id, user_id, occurrence_at, channel, next_attempt_at,
    is_late, status, is_superseded, attempts, claim_seq, error, created_at)
SELECT gen_random_uuid(), id, user_id, scheduled_at - interval '1 day', 'email', now(),
    false, 'sent', false, 1, 1, '', now() FROM reminders WHERE user_id = %(user)s;
INSERT INTO reminder_delivery_attempts (delivery_id, number, outcome, reason, ended_at)
SELECT id, 1, 'sent', '', now() FROM reminder_deliveries WHERE user_id = %(user)s;
INSERT INTO notifications (user_id, reminder_id, title, message, occurrence_at, created_at)
SELECT user_id, id, '', '', now(), now() FROM reminders WHERE user_id = %(user)s;
INSERT INTO background_jobs (job_id, user_id, job_type, status, total_items, processed_items,
    failed_items, skipped_items, parameters, error_message, request_id, created_at,
    dispatched_at)
SELECT gen_random_uuid(), user_id, 'embedding_update', 'completed', 0, 0, 0, 0, '{}', '', '', now(),
    now()
FROM notes WHERE user_id = %(user)s;
"""
FORGET = """
SELECT pg_clear_attribute_stats(schemaname, tablename, attname, inherited) FROM pg_stats
WHERE schemaname = 'public';
SELECT pg_clear_relation_stats('public', tablename) FROM pg_tables WHERE schemaname = 'public';
"""
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
    "/scripture/coverage",
    "/semantic/similar/{note}?limit=100&min_similarity=-1",
    "/notes/{note}",
    "/jobs?limit=100",
    "/reminders?limit=100",
    "/reminders?note_id={note}",
    "/reminders/{reminder}",
    "/reminders/{reminder}/deliveries",
    "/notifications?limit=100&unread=true",
)


def write_notes(user: User, count: int) -> None:
    notes = [
        Note(user=user, title=f"Note {n}", content=f"{WORDS} {n}", tags=[f"tag {n % 7}"])
        for n in range(count)
    ]
    for note in notes:
        note.text_hash = text_hash(note)
    Note.objects.bulk_create(notes, batch_size=1000)


def fill(user: User) -> None:
    model = default_model()
    vector = [0.1] * encoder_of(model).dimension
    values: dict[str, Any] = {"user": user.pk, "model": model.pk, "vector": str(vector)}
    with connection.cursor() as cursor:
        cursor.execute(FILL, values)


@pytest.fixture(params=["fresh", "outdated", "analysed"])
def tables(request: pytest.FixtureRequest, alice: User, bob: User) -> None:
    """Tables that PostgreSQL has not analysed, or had analysed before Alice wrote anything, or has
    analysed just now."""
    forget_statistics()
    write_notes(bob, OTHERS)
    fill(bob)
    if request.param == "outdated":
        analyse()
    write_notes(alice, OWN)
    fill(alice)
    if request.param == "analysed":
        analyse()


def forget_statistics() -> None:
    """What autovacuum, or a test before this one, has recorded."""
    with connection.cursor() as cursor:
        cursor.execute(FORGET)


def analyse() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


@pytest.mark.usefixtures("tables")
def test_search_reads_each_own_note_a_few_times(api: APIClient):
    """Not once more for each match, and none of another user."""
    for mode, query in product(("keyword", "hybrid"), SEARCHES):
        body = {"query": query, "mode": mode, "limit": 100}
        assert most_rows_read(lambda b=body: api.post("/semantic/search", b)) <= 4 * OWN, body  # type: ignore[misc]


@pytest.mark.usefixtures("tables")
def test_list_reads_own_rows_only(api: APIClient, alice: User):
    reminder = Reminder.objects.for_user(alice).latest("pk")
    for template in LISTS:
        path = template.format(note=reminder.note_id, reminder=reminder.pk)
        assert most_rows_read(lambda p=path: api.get(p)) <= 4 * OWN, path  # type: ignore[misc]


@pytest.mark.parametrize("tables", ["analysed"], indirect=True)
def test_calendar_reads_own_rows_only(tables: None, api: APIClient):
    """Until PostgreSQL has analysed the reminders, it may also read the index of all pending ones."""
    feed = urlsplit(api.get("/reminders/preferences").json()["feed_url"]).path
    assert most_rows_read(lambda: api.get(feed)) <= 4 * OWN


MANY_HEADINGS = "# Another heading\n" * 10_000


def test_search_looks_for_headings_near_the_words(api: APIClient, alice: User):
    make_note(alice, content=f"{MANY_HEADINGS}Nicodemus came by night.")
    body = {"query": "Nicodemus", "mode": "keyword"}
    (nodes,) = plans_of(lambda: api.post("/semantic/search", body), "regexp_matches")
    (found,) = [node for node in nodes if node.get("Function Name") == "regexp_matches"]
    assert 0 < found["Actual Rows"] < HEADING_DISTANCE_CHARACTERS / 10
    (result,) = api.post("/semantic/search", body).json()["results"]
    assert result["passage"]["heading"] == "Another heading"


@pytest.mark.usefixtures("tables")
def test_stale_notes_are_found_by_reading_own_rows_only(alice: User):
    stale = Note.objects.for_user(alice).stale(default_model())
    assert most_rows_read(lambda: list(stale)) <= 4 * OWN
