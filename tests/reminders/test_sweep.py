"""The sweep: each due reminder becomes its deliveries once, however many sweeps and however late."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from threading import Event

import pytest
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from notes.models import Note
from reminders.models import Delivery, Reminder
from reminders.sweep import SWEEP_BATCH_SIZE
from reminders.sweep import sweep as sweep_at
from reminders.tasks import send_deliveries
from scribes.messaging.broker import queue_length
from scribes.models import User
from tests.helpers.database import is_lock_awaited
from tests.helpers.factories import make_reminder, make_reminders
from tests.helpers.mail import MailServer
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually, run_concurrently
from tests.helpers.reminders import Prefer, deliver, sweep
from tests.helpers.servers import delete_queues
from tests.helpers.sweep_plan import assert_the_sweep_reads_only_what_is_due

# --- What is sent ---------------------------------------------------------------------------


def test_due_reminder_is_sent_and_a_later_one_waits(mail: MailServer, note: Note):
    due = make_reminder(note)
    later = make_reminder(note, due_in=timedelta(minutes=5))
    assert deliver(due).status == "sent"
    later.refresh_from_db()
    assert (due.status, later.status) == ("sent", "pending")
    assert not later.deliveries.exists()
    assert len(mail.messages) == 1


def test_reminder_is_sending_until_it_is_sent(note: Note):
    reminder = make_reminder(note)
    sweep()
    reminder.refresh_from_db()
    assert reminder.status == "sending"


def test_sweep_creates_one_delivery_per_channel(note: Note):
    make_reminder(note, channels=["in_app", "email", "email"])
    sweep()
    channels = Delivery.objects.values_list("channel", flat=True)
    assert sorted(channels) == ["email", "in_app"]


def test_second_sweep_finds_nothing(note: Note):
    make_reminder(note)
    assert (sweep(), sweep()) == (1, 0)
    assert Delivery.objects.count() == 1


def test_occurrence_is_not_sent_again_when_it_was_sent(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    deliver(reminder)
    Reminder.objects.update(status="pending")
    deliver(reminder)
    assert reminder.status == "sent"
    assert len(mail.messages) == 1


def test_message_for_a_deleted_reminder_does_nothing(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    delivery_id = str(reminder.deliveries.get().pk)
    reminder.delete()
    send_deliveries([delivery_id])
    assert mail.messages == []


# --- Late -----------------------------------------------------------------------------------


def test_reminder_is_sent_once_and_late_after_an_outage(mail: MailServer, note: Note):
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


def test_reminder_is_not_late_at_the_next_sweep(mail: MailServer, note: Note):
    reminder = make_reminder(note, due_in=-timedelta(minutes=15))
    assert not deliver(reminder).is_late


@pytest.mark.parametrize(("seconds", "is_late"), [(0, False), (1, True)])
def test_delivery_is_late_after_16_minutes(note: Note, seconds: int, is_late: bool):
    reminder = make_reminder(note, due_in=-timedelta(hours=1))
    sweep_at(reminder.scheduled_at + timedelta(minutes=16, seconds=seconds))
    assert reminder.deliveries.get().is_late is is_late


# --- What comes next ------------------------------------------------------------------------


def test_recurring_reminder_moves_to_its_next_time(mail: MailServer, note: Note):
    reminder = make_reminder(note, rrule="FREQ=DAILY")
    due = reminder.scheduled_at
    assert deliver(reminder).occurrence_at == due
    assert (reminder.status, reminder.scheduled_at) == ("pending", due + timedelta(days=1))


def test_reminder_ends_with_the_last_time_of_its_rule(mail: MailServer, note: Note):
    reminder = make_reminder(note, rrule="FREQ=DAILY;COUNT=1")
    assert deliver(reminder).status == "sent"
    assert reminder.status == "sent"


def test_snoozed_reminder_fires_then_and_keeps_its_rule(mail: MailServer, note: Note):
    reminder = make_reminder(note, rrule="FREQ=DAILY")
    deliver(reminder)
    next_time = reminder.scheduled_at
    assert reminder.snooze(timezone.now() - timedelta(seconds=1))
    deliver(reminder)
    assert len(mail.messages) == 2
    assert reminder.scheduled_at == next_time


@pytest.mark.parametrize(
    "stored", [{"time_zone": "Atlantis/Deep"}, {"rrule": "FREQ=DAILY;BYMOON=1"}]
)
def test_invalid_rule_ends_only_its_own_reminder(
    mail: MailServer, api: APIClient, note: Note, stored
):
    invalid = make_reminder(note, **({"rrule": "FREQ=DAILY"} | stored))
    valid = make_reminder(note, rrule="FREQ=DAILY")
    shown = api.get(f"/reminders/{invalid.pk}").json()
    assert (shown["rule_description"], len(shown["next"])) == (None, 1)
    assert deliver(invalid).status == "sent"
    valid.refresh_from_db()
    assert (invalid.status, valid.status) == ("sent", "pending")
    assert next(iter(stored.values())).split(";")[-1].split("=")[0] in invalid.error
    assert len(mail.messages) == 2


@pytest.mark.parametrize("zone", ["Atlantis/Deep", "../Berlin", "", "Europe"])
def test_invalid_zone_of_a_user_stops_nothing(
    mail: MailServer, alice: User, note: Note, prefer: Prefer, zone: str
):
    User.objects.filter(pk=alice.pk).update(time_zone=zone)
    prefer(alice, quiet_from=time(0), quiet_until=time(0))
    assert deliver(make_reminder(note)).status == "sent"


def test_next_times_across_a_clock_change(note: Note):
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


# --- Locks ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("transactional_db")
def test_sweep_waits_for_a_reminder_that_is_being_changed(note: Note):
    reminder = make_reminder(note)
    held = Event()

    def change_or_sweep(number: int) -> int:
        if number:
            held.wait(LONGEST_WAIT_SECONDS)
            return sweep()
        with transaction.atomic():
            Reminder.objects.filter(pk=reminder.pk).update(message="New")
            held.set()
            eventually(is_lock_awaited)
        return 0

    assert run_concurrently(2, change_or_sweep) == [0, 1]
    assert Delivery.objects.get().reminder.message == "New"


@pytest.mark.usefixtures("transactional_db")
def test_sweep_handles_unlocked_reminders_before_it_waits(note: Note):
    locked, free = make_reminder(note, due_in=-timedelta(seconds=9)), make_reminder(note)
    held = Event()

    def hold_or_sweep(number: int) -> int:
        if number:
            assert held.wait(LONGEST_WAIT_SECONDS)
            return sweep()
        with transaction.atomic():
            Reminder.objects.select_for_update(no_key=True).get(pk=locked.pk)
            held.set()
            eventually(free.deliveries.exists)
        return 0

    assert run_concurrently(2, hold_or_sweep) == [0, 2]
    assert locked.deliveries.count() == 1


@pytest.mark.usefixtures("transactional_db")
def test_sweep_gives_up_a_reminder_that_stays_locked(note: Note):
    locked, free = make_reminder(note, due_in=-timedelta(seconds=9)), make_reminder(note)
    held, swept = Event(), Event()

    def hold_or_sweep(number: int) -> int:
        if number:
            held.wait(LONGEST_WAIT_SECONDS)
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '100ms'")
            found = sweep()
            swept.set()
            return found
        with transaction.atomic():
            Reminder.objects.select_for_update(no_key=True).get(pk=locked.pk)
            held.set()
            assert swept.wait(LONGEST_WAIT_SECONDS)
        return sweep()

    assert run_concurrently(2, hold_or_sweep) == [1, 1]
    assert free.deliveries.count() == locked.deliveries.count() == 1


@pytest.mark.usefixtures("transactional_db")
def test_eight_concurrent_sweeps_create_each_delivery_once(note: Note):
    make_reminders(note, 2500, rrule="FREQ=DAILY")
    make_reminders(note, 500)
    found = run_concurrently(8, lambda n: sweep())
    assert sum(found) == 3000
    assert Delivery.objects.count() == 3000
    assert Delivery.objects.values("reminder", "occurrence_at").distinct().count() == 3000
    assert (
        Reminder.objects.filter(status="pending", scheduled_at__gt=timezone.now()).count() == 2500
    )


# --- Cost -----------------------------------------------------------------------------------


def test_many_reminders_take_few_messages_and_few_queries(
    note: Note, run_on_commit, django_assert_max_num_queries, servers: None
):
    delete_queues()
    many = 2 * SWEEP_BATCH_SIZE + 1
    make_reminders(note, many)
    with run_on_commit(), django_assert_max_num_queries(100):
        assert sweep() == many
    assert queue_length("reminders") == 3
    delete_queues()


def test_sweep_reads_only_due_reminders(note: Note):
    """It reads as many pages with 100,000 pending reminders as with a million."""
    assert_the_sweep_reads_only_what_is_due(note, 100_000)
