"""Due reminders become deliveries, once each, whoever sweeps and however late."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from threading import Event

import pytest
from django.db import connection, transaction
from django.utils import timezone

from jobs.broker import queue_length
from notes.models import Note
from reminders.models import Delivery, Reminder, ReminderPreferences
from reminders.sweep import SWEEP_BATCH_SIZE
from reminders.sweep import sweep as sweep_at
from reminders.tasks import send_deliveries
from scribes.models import User
from tests.conftest import forget_queues
from tests.mail import MailServer
from tests.plans import plans_of
from tests.processes import at_once, eventually
from tests.reminders.conftest import (
    deliver,
    make_many,
    make_reminder,
    somebody_waits_for_a_lock,
    sweep,
)


def test_what_is_due_is_sent_and_the_rest_waits(mail: MailServer, note: Note):
    due = make_reminder(note)
    later = make_reminder(note, due_in=timedelta(minutes=5))
    assert deliver(due).status == "sent"
    later.refresh_from_db()
    assert (due.status, later.status) == ("sent", "pending")
    assert not later.deliveries.exists()
    assert len(mail.messages) == 1


def test_until_it_is_sent_it_is_not_called_sent(note: Note):
    reminder = make_reminder(note)
    sweep()
    reminder.refresh_from_db()
    assert reminder.status == "sending"


def test_one_delivery_for_each_channel(mail: MailServer, note: Note):
    make_reminder(note, channels=["in_app", "email", "email"])
    sweep()
    channels = Delivery.objects.values_list("channel", flat=True)
    assert sorted(channels) == ["email", "in_app"]


def test_a_second_sweep_finds_nothing(note: Note):
    make_reminder(note)
    assert (sweep(), sweep()) == (1, 0)
    assert Delivery.objects.count() == 1


def test_an_occurrence_that_was_sent_is_not_sent_again(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    deliver(reminder)
    Reminder.objects.update(status="pending")
    deliver(reminder)
    assert reminder.status == "sent"
    assert len(mail.messages) == 1


def test_what_recurs_goes_on_to_its_next_time(mail: MailServer, note: Note):
    reminder = make_reminder(note, rrule="FREQ=DAILY")
    due = reminder.scheduled_at
    assert deliver(reminder).occurrence_at == due
    assert (reminder.status, reminder.scheduled_at) == ("pending", due + timedelta(days=1))


def test_the_last_time_of_a_rule_is_the_last(mail: MailServer, note: Note):
    reminder = make_reminder(note, rrule="FREQ=DAILY;COUNT=1")
    assert deliver(reminder).status == "sent"
    assert reminder.status == "sent"


def test_after_an_outage_once_and_marked_late(mail: MailServer, note: Note):
    reminder = make_reminder(note, due_in=-timedelta(days=3, hours=1), rrule="FREQ=DAILY")
    first = reminder.scheduled_at
    delivery = deliver(reminder)
    assert sweep() == 0
    assert reminder.deliveries.count() == len(mail.messages) == 1
    assert (delivery.is_late, delivery.occurrence_at) == (True, first)
    assert delivery.lateness_seconds is not None
    assert delivery.lateness_seconds > 73 * 3600
    assert reminder.scheduled_at == first + timedelta(days=4)
    assert mail.messages[0]["Subject"] == "Reminder (late): Rest"


def test_found_by_the_next_quarters_sweep_is_not_late(mail: MailServer, note: Note):
    reminder = make_reminder(note, due_in=-timedelta(minutes=15))
    assert not deliver(reminder).is_late


def test_a_snoozed_one_fires_then_and_goes_on_as_before(mail: MailServer, note: Note):
    reminder = make_reminder(note, rrule="FREQ=DAILY")
    deliver(reminder)
    following = reminder.scheduled_at
    assert reminder.snooze(timezone.now() - timedelta(seconds=1))
    deliver(reminder)
    assert len(mail.messages) == 2
    assert reminder.scheduled_at == following


@pytest.mark.parametrize(
    "stored", [{"time_zone": "Atlantis/Deep"}, {"rrule": "FREQ=DAILY;BYMOON=1"}]
)
def test_a_rule_that_became_unreadable_ends_alone(mail: MailServer, api, note: Note, stored):
    broken = make_reminder(note, **({"rrule": "FREQ=DAILY"} | stored))
    whole = make_reminder(note, rrule="FREQ=DAILY")
    shown = api.get(f"/reminders/{broken.pk}").json()
    assert (shown["rule_in_words"], len(shown["next"])) == (None, 1)
    assert deliver(broken).status == "sent"
    whole.refresh_from_db()
    assert (broken.status, whole.status) == ("sent", "pending")
    assert next(iter(stored.values())).split(";")[-1].split("=")[0] in broken.error
    assert len(mail.messages) == 2


@pytest.mark.parametrize("zone", ["Atlantis/Deep", "../Berlin", "", "Europe"])
def test_a_users_zone_that_is_gone_stops_nobody(
    mail: MailServer, alice: User, note: Note, zone: str
):
    User.objects.filter(pk=alice.pk).update(time_zone=zone)
    ReminderPreferences.objects.create(user=alice, quiet_from=time(0), quiet_until=time(0))
    assert deliver(make_reminder(note)).status == "sent"


@pytest.mark.usefixtures("transactional_db")
def test_what_is_being_changed_as_it_is_due_is_not_a_quarter_late(note: Note):
    reminder = make_reminder(note)
    held = Event()

    def change_or_sweep(number: int) -> int:
        if number:
            held.wait(10)
            return sweep()
        with transaction.atomic():
            Reminder.objects.filter(pk=reminder.pk).update(message="New")
            held.set()
            eventually(somebody_waits_for_a_lock, timeout=20)
        return 0

    assert at_once(2, change_or_sweep) == [0, 1]
    assert Delivery.objects.get().reminder.message == "New"


@pytest.mark.usefixtures("transactional_db")
def test_what_is_locked_for_long_does_not_stop_the_sweep(note: Note):
    locked, free = make_reminder(note, due_in=-timedelta(seconds=9)), make_reminder(note)
    held, swept = Event(), Event()

    def hold_or_sweep(number: int) -> int:
        if number:
            held.wait(10)
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '100ms'")
            found = sweep()
            swept.set()
            return found
        with transaction.atomic():
            Reminder.objects.select_for_update(no_key=True).get(pk=locked.pk)
            held.set()
            assert swept.wait(20)
        return sweep()

    assert at_once(2, hold_or_sweep) == [1, 1]
    assert free.deliveries.count() == locked.deliveries.count() == 1


def test_many_reminders_take_few_messages_and_few_queries(
    note: Note, commits, django_assert_max_num_queries, servers: None
):
    forget_queues()
    many = 2 * SWEEP_BATCH_SIZE + 1
    make_many(note, many)
    with commits(), django_assert_max_num_queries(100):
        assert sweep() == many
    assert queue_length("reminders") == 3
    forget_queues()


@pytest.mark.usefixtures("transactional_db")
def test_eight_sweeps_at_once_make_each_delivery_once(note: Note):
    make_many(note, 2500, rrule="FREQ=DAILY")
    make_many(note, 500)
    found = at_once(8, lambda n: sweep())
    assert sum(found) == 3000
    assert Delivery.objects.count() == 3000
    assert Delivery.objects.values("reminder", "occurrence_at").distinct().count() == 3000
    assert (
        Reminder.objects.filter(status="pending", scheduled_at__gt=timezone.now()).count() == 2500
    )


def test_next_times_across_a_change_of_clocks(note: Note):
    """In Berlin, 28 March 2027 has no 02:30."""
    reminder = make_reminder(
        note,
        time_zone="Europe/Berlin",
        rrule="FREQ=DAILY",
        scheduled_at=datetime(2027, 3, 27, 1, 30, tzinfo=UTC),
        start_date="2027-03-27",
        start_time="02:30",
    )
    seen = []
    for _ in range(3):
        reminder.refresh_from_db()
        seen.append(reminder.scheduled_at)
        sweep_at(reminder.scheduled_at)
    assert seen == [
        datetime(2027, 3, 27, 1, 30, tzinfo=UTC),
        datetime(2027, 3, 28, 1, 30, tzinfo=UTC),
        datetime(2027, 3, 29, 0, 30, tzinfo=UTC),
    ]


def fill(note: Note, number: int) -> None:
    """So many pending reminders of the years to come."""
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


def assert_the_sweep_reads_only_what_is_due(note: Note, pending: int) -> None:
    """By the plans of the sweep's own queries, run again on the rows as they were before it."""
    fill(note, pending)
    make_many(note, 10)
    batch, rest, waited = plans_of(sweep_and_take_it_back, 'FROM "reminders"')
    for nodes, rows in ((batch, 10), (rest, 10), (waited, 1)):
        (read,) = (node for node in nodes if node.get("Relation Name") == "reminders")
        assert read["Node Type"] == "Index Scan"
        assert read["Index Name"] == "reminders_due"
        assert read["Actual Rows"] == rows
        assert read.get("Rows Removed by Filter", 0) == 0
        assert read["Shared Hit Blocks"] + read["Shared Read Blocks"] < 40


def sweep_and_take_it_back() -> None:
    with transaction.atomic():
        assert sweep() == 10
        transaction.set_rollback(True)


def test_the_sweep_reads_only_what_is_due(note: Note):
    """Pages of the index and of the table, whether 100,000 reminders wait or a million."""
    assert_the_sweep_reads_only_what_is_due(note, 100_000)


def test_a_message_for_what_is_gone_is_dropped(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    delivery_id = str(reminder.deliveries.get().pk)
    reminder.delete()
    send_deliveries([delivery_id])
    assert mail.messages == []
