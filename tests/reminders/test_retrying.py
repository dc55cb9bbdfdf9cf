"""Retries: what gets a new message, and what becomes of a dead process's deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from threading import Event

import pytest
from django.db import transaction
from django.utils import timezone

from notes.models import Note
from reminders.models import Delivery, DeliveryAttempt, Reminder
from reminders.retrying import release_expired, retry_due_deliveries
from reminders.sending import MAX_ATTEMPTS
from reminders.tasks import send_deliveries
from scribes.messaging.broker import queue_length
from tests.helpers.database import is_lock_awaited
from tests.helpers.factories import make_reminder
from tests.helpers.mail import MailServer
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually, run_concurrently
from tests.helpers.reminders import deliver, outcomes, send, sweep
from tests.helpers.servers import delete_queues

# --- Messages -------------------------------------------------------------------------------


@pytest.fixture
def empty_queues(servers: None) -> Iterator[None]:
    delete_queues()
    yield
    delete_queues()


@pytest.mark.usefixtures("empty_queues")
def test_lost_message_is_sent_again_after_a_while(note: Note, run_on_commit):
    make_reminder(note)
    sweep()
    with run_on_commit():
        retry_due_deliveries()
    assert queue_length("reminders") == 0
    Delivery.objects.update(dispatched_at=timezone.now() - timedelta(minutes=2))
    with run_on_commit():
        retry_due_deliveries()
        retry_due_deliveries()
    assert queue_length("reminders") == 1


@pytest.mark.usefixtures("empty_queues")
def test_message_is_lost_later_when_others_wait(note: Note, run_on_commit):
    make_reminder(note)
    with run_on_commit():
        sweep()
    assert queue_length("reminders") == 1
    Delivery.objects.update(dispatched_at=timezone.now() - timedelta(minutes=2))
    with run_on_commit():
        retry_due_deliveries()
    assert queue_length("reminders") == 1


@pytest.mark.usefixtures("empty_queues")
def test_retry_gets_a_message_when_it_is_due(mail: MailServer, note: Note, run_on_commit):
    mail.answer = lambda message: "451 Later"
    delivery = deliver(make_reminder(note))
    with run_on_commit():
        retry_due_deliveries()
    assert queue_length("reminders") == 0
    Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=timezone.now())
    with run_on_commit():
        retry_due_deliveries()
    assert queue_length("reminders") == 1


@pytest.mark.usefixtures("transactional_db", "empty_queues")
def test_retry_does_not_wait_for_a_locked_delivery(note: Note):
    locked, free = make_reminder(note), make_reminder(note)
    sweep()
    delete_queues()
    Delivery.objects.update(dispatched_at=None)
    held = Event()

    def hold_or_retry(number: int) -> None:
        if number:
            assert held.wait(LONGEST_WAIT_SECONDS)
            retry_due_deliveries()
            return
        with transaction.atomic():
            Delivery.objects.select_for_update().get(reminder=locked)
            held.set()
            eventually(lambda: queue_length("reminders") == 1)

    run_concurrently(2, hold_or_retry)
    assert free.deliveries.get().dispatched_at is not None
    assert locked.deliveries.get().dispatched_at is None


# --- Dead processes -------------------------------------------------------------------------


def expire_leases() -> None:
    Delivery.objects.held().update(lease_expires_at="2000-01-01T00:00:00Z")
    retry_due_deliveries()


def test_delivery_of_a_dead_process_is_logged_and_sent(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    Delivery.claim(reminder.deliveries.get())
    send()
    assert mail.messages == []
    expire_leases()
    send()
    assert outcomes(reminder.deliveries.get()) == ["lost", "sent"]
    assert len(mail.messages) == 1


def test_delivery_fails_when_every_process_dies(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    for _ in range(MAX_ATTEMPTS):
        assert Delivery.claim(reminder.deliveries.get())
        expire_leases()
    reminder.refresh_from_db()
    assert (reminder.deliveries.get().status, reminder.status) == ("failed", "failed")


@pytest.mark.usefixtures("transactional_db")
def test_outcome_wins_when_recorded_before_the_release(mail: MailServer, note: Note):
    """The lease has expired, but the process is alive and records the outcome first."""
    reminder = make_reminder(note)
    sweep()
    (claimed,) = Delivery.claim(reminder.deliveries.get())
    Delivery.objects.update(lease_expires_at=timezone.now())
    held = Event()

    def record_or_release(number: int) -> None:
        if number:
            held.wait(LONGEST_WAIT_SECONDS)
            release_expired()
            return
        with transaction.atomic():
            Reminder.objects.select_for_update(no_key=True).get(pk=reminder.pk)
            held.set()
            eventually(is_lock_awaited)
            assert claimed.record(DeliveryAttempt.Outcome.SENT, "", status="sent")

    run_concurrently(2, record_or_release)
    delivery = reminder.deliveries.get()
    assert (delivery.status, outcomes(delivery)) == ("sent", ["sent"])


# --- Lost leases ----------------------------------------------------------------------------


def test_process_that_lost_its_lease_records_nothing(mail: MailServer, note: Note):
    """The lease expires while the mail is being sent, and another process sends it, too."""
    reminder = make_reminder(note)
    sweep()
    (delivery,) = reminder.deliveries.all()

    claimed = Delivery.claim(delivery)
    assert len(claimed) == 1
    expire_leases()
    send_deliveries([str(delivery.pk)])
    failed = DeliveryAttempt.Outcome.FAILED
    assert not claimed[0].record(failed, "Too late", status="failed")
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts, delivery.error) == ("sent", 2, "")
    assert outcomes(delivery) == ["lost", "sent"]


def test_process_records_nothing_when_its_lease_was_released(note: Note):
    """Nobody has claimed the delivery since, so claim_seq is the same, but it is pending again."""
    reminder = make_reminder(note)
    sweep()
    (claimed,) = Delivery.claim(reminder.deliveries.get())
    expire_leases()
    assert not claimed.record(DeliveryAttempt.Outcome.SENT, "", status="sent")
    delivery = reminder.deliveries.get()
    assert (delivery.status, outcomes(delivery)) == ("pending", ["lost"])


def test_process_records_nothing_when_another_holds_the_lease(note: Note):
    """The row says "sending" for both of them, so only claim_seq tells their claims apart."""
    reminder = make_reminder(note)
    sweep()
    (first,) = Delivery.claim(reminder.deliveries.get())
    expire_leases()
    (second,) = Delivery.claim(reminder.deliveries.get())
    assert second.claim_seq == first.claim_seq + 1
    assert not first.record(DeliveryAttempt.Outcome.FAILED, "Too late", status="failed")
    delivery = reminder.deliveries.get()
    assert (delivery.status, outcomes(delivery)) == ("sending", ["lost"])
    assert second.record(DeliveryAttempt.Outcome.SENT, "", status="sent")
    assert outcomes(delivery) == ["lost", "sent"]


def test_delivery_is_not_retried_when_cancelled_meanwhile(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    (delivery,) = Delivery.claim(reminder.deliveries.get())
    assert reminder.cancel()
    expire_leases()
    delivery.refresh_from_db()
    assert delivery.status == "cancelled"
    send()
    assert mail.messages == []
