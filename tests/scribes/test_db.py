"""scribes.db: the lookup `any_of`, and deletion that locks the rows and their children first."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from notes.models import Note
from reminders.models import Reminder
from scribes.models import User
from tests.helpers.factories import make_note, make_reminder


def test_any_of_finds_what_in_finds(alice: User):
    notes = [make_note(alice, f"Note {number}") for number in range(3)]
    for chosen in ([], notes[:1], notes[1:]):
        ids = [note.pk for note in chosen]
        assert set(Note.objects.filter(pk__any_of=ids)) == set(chosen)
        assert set(Note.objects.exclude(pk__any_of=ids)) == set(notes) - set(chosen)


def test_any_of_works_for_foreign_keys(alice: User, bob: User):
    theirs = make_note(bob)
    make_note(alice)
    assert list(Note.objects.filter(user__any_of=[bob.pk])) == [theirs]
    assert "= ANY(" in str(Note.objects.filter(user__any_of=[bob.pk]).query)


def test_deletion_locks_parents_before_children(alice: User):
    reminder = make_reminder(make_note(alice))
    with CaptureQueriesContext(connection) as queries:
        Reminder.objects.filter(pk=reminder.pk).delete()
    statements = [query["sql"] for query in queries]
    locked = [n for n, sql in enumerate(statements) if "FOR UPDATE" in sql]
    deleted = [n for n, sql in enumerate(statements) if sql.startswith("DELETE")]
    tables = [statements[n].split('FROM "')[1].split('"')[0] for n in locked]
    assert tables[:2] == ["reminders", "reminder_deliveries"]
    assert max(locked) < min(deleted)
    assert not Reminder.objects.exists()


def test_manager_has_no_delete():
    """Reminder.objects.delete() would delete everything."""
    with pytest.raises(AttributeError):
        Reminder.objects.delete()
