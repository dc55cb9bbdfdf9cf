"""A check that the sweep reads only due reminders, whatever the number of pending ones."""

from __future__ import annotations

from django.db import connection, transaction

from notes.models import Note
from tests.helpers.factories import make_reminders
from tests.helpers.plans import plans_of
from tests.helpers.reminders import sweep


def assert_the_sweep_reads_only_what_is_due(note: Note, pending: int) -> None:
    """Check the plans of the sweep's queries, with `pending` reminders that are not due yet."""
    _fill(note, pending)
    make_reminders(note, 10)
    batch, next_batch, locked_rows = plans_of(_sweep_and_roll_back, 'FROM "reminders"')
    for nodes, rows in ((batch, 10), (next_batch, 10), (locked_rows, 1)):
        (read,) = (node for node in nodes if node.get("Relation Name") == "reminders")
        assert read["Node Type"] == "Index Scan"
        assert read["Index Name"] == "reminders_due"
        assert read["Actual Rows"] == rows
        assert read.get("Rows Removed by Filter", 0) == 0
        assert read["Shared Hit Blocks"] + read["Shared Read Blocks"] < 40


def _fill(note: Note, number: int) -> None:
    """Create `number` pending reminders of the coming years."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO reminders (user_id, note_id, status, scheduled_at, start_date, start_time,
                time_zone, rrule, channels, message, snooze_link, error, request_id, created_at,
                updated_at)
            SELECT %s, %s, 'pending', now() + (n + 60) * interval '1 minute', now(), '00:00',
                'UTC', '', '{email}', '', '', '', '', now(), now() FROM generate_series(1, %s) n
            """,
            [note.user_id, note.pk, number],
        )
        cursor.execute("ANALYZE reminders")


def _sweep_and_roll_back() -> None:
    with transaction.atomic():
        assert sweep() == 10
        transaction.set_rollback(True)
