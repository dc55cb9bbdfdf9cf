"""The daily digest: one mail, which keeps its identity whatever happens to its reminders."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from threading import Event
from zoneinfo import ZoneInfo

import pytest
from django.db import transaction
from django.utils import timezone

from notes.models import Note
from reminders.models import Delivery, Reminder, ReminderPreferences
from reminders.retrying import release_expired
from reminders.sweep import sweep as sweep_at
from scribes.models import User
from tests.helpers.database import is_lock_awaited
from tests.helpers.factories import make_note, make_reminder
from tests.helpers.mail import MailServer, body
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually, run_concurrently
from tests.helpers.reminders import Prefer, send, sweep


def fail_first_attempts(mail: MailServer) -> list[str]:
    """Postpone the first message of each Message-ID; return a list of all Message-IDs seen."""
    seen: list[str] = []

    def answer(message):
        seen.append(message["Message-ID"])
        return "451 Later" if seen.count(seen[-1]) == 1 else "250 OK"

    mail.answer = answer
    return seen


def send_now() -> None:
    """Send all pending deliveries, whenever they are due."""
    Delivery.objects.pending().update(next_attempt_at=timezone.now())
    send()


def test_digest_is_one_mail_for_all_reminders(mail: MailServer, alice: User, prefer: Prefer):
    prefer(alice, digest_at=time(7))
    titles = ["One", "Two", "Three"]
    for title in titles:
        make_reminder(make_note(alice, title))
    sweep()
    send()
    assert mail.messages == []
    send_now()
    (message,) = mail.messages
    assert message["Subject"] == "3 reminders"
    assert all(title in body(message) for title in titles)
    assert set(Delivery.objects.values_list("status", "attempts")) == {("sent", 1)}
    assert set(alice.reminders.values_list("status", flat=True)) == {"sent"}


def test_digest_leaves_out_webhooks_and_in_app(note: Note, alice: User, prefer: Prefer):
    prefer(alice, digest_at=time(7))
    make_reminder(note, channels=["email", "webhook", "in_app"])
    sweep()
    digests = dict(Delivery.objects.values_list("channel", "digest"))
    assert digests.pop("email") is not None
    assert digests == {"webhook": None, "in_app": None}


def test_digest_is_retried_as_the_same_mail(
    mail: MailServer, alice: User, note: Note, prefer: Prefer
):
    prefer(alice, digest_at=time(7))
    make_reminder(note)
    make_reminder(note)
    sweep()
    seen = fail_first_attempts(mail)
    for _ in range(2):
        send_now()
    assert len(seen) == 2
    assert len(set(seen)) == 1
    assert len(mail.messages) == 1


def test_digest_stays_the_same_mail_when_reminders_leave_it(
    mail: MailServer, alice: User, note: Note, prefer: Prefer
):
    """The first attempt may have arrived, so the second one must have the same Message-ID."""
    prefer(alice, digest_at=time(7))
    cancelled, snoozed, kept = (make_reminder(note, message=text) for text in ("One", "Two", "Six"))
    seen = fail_first_attempts(mail)
    sweep()
    send_now()
    cancelled.cancel()
    snoozed.snooze(timezone.now() + timedelta(hours=1))
    send_now()
    (message,) = mail.messages
    assert seen == [message["Message-ID"]] * 2
    assert "Six" in body(message)
    assert "One" not in body(message)
    assert kept.deliveries.get().status == "sent"


def test_digest_sends_late_reminders_in_another_mail(
    mail: MailServer, alice: User, note: Note, prefer: Prefer
):
    """With the Message-ID of the first mail, it might be discarded as a copy."""
    prefer(alice, digest_at=time(7))
    make_reminder(note)
    make_reminder(note)
    seen = fail_first_attempts(mail)
    sweep()
    send_now()
    make_reminder(note)
    sweep()
    send_now()
    send_now()
    assert len(seen) == 4
    assert len(set(seen)) == 2
    assert sorted(message["Subject"] for message in mail.messages) == [
        *("2 reminders", "Reminder: Rest"),
    ]


def test_digest_is_split_into_several_mails_when_long(
    mail: MailServer, alice: User, note: Note, prefer: Prefer, monkeypatch
):
    monkeypatch.setattr("reminders.deliveries.DIGEST_MAX_REMINDERS", 2)
    prefer(alice, digest_at=time(7))
    for _ in range(5):
        make_reminder(note)
    sweep()
    send_now()
    assert len(mail.messages) == len(mail.copies()) == 3
    assert set(Delivery.objects.values_list("status", "attempts")) == {("sent", 1)}


@pytest.mark.django_db(transaction=True)
def test_digest_of_a_dead_process_is_released_as_a_whole(alice: User, note: Note, prefer: Prefer):
    """While the release waits for the second reminder, the first one is not sent alone."""
    prefer(alice, digest_at=time(7))
    reminders = [make_reminder(note) for _ in range(2)]
    sweep()
    Delivery.objects.update(next_attempt_at=timezone.now())
    claimed = Delivery.claim(Delivery.objects.earliest("pk"))
    assert len(claimed) == 2
    Delivery.objects.update(lease_expires_at=timezone.now())
    held = Event()

    def hold_or_release(number: int) -> set[str]:
        if number:
            held.wait(LONGEST_WAIT_SECONDS)
            release_expired()
        else:
            with transaction.atomic():
                Reminder.objects.select_for_update(no_key=True).get(pk=reminders[1].pk)
                held.set()
                eventually(is_lock_awaited)
                return set(Delivery.objects.values_list("status", flat=True))
        return set(Delivery.objects.values_list("status", flat=True))

    assert run_concurrently(2, hold_or_release) == [{"sending"}, {"pending"}]
    assert len(set(Delivery.objects.values_list("digest", flat=True))) == 1


def test_digest_has_one_users_reminders_only(
    mail: MailServer, alice: User, bob: User, prefer: Prefer
):
    for user in (alice, bob):
        prefer(user, digest_at=time(7))
        for _ in range(2):
            make_reminder(make_note(user, f"Of {user.email}"))
    now = timezone.now()
    sweep_at(now)
    sweep_at(now + timedelta(days=1))
    Delivery.objects.update(next_attempt_at=timezone.now())
    send()
    assert sorted(message["To"] for message in mail.messages) == [alice.email, bob.email]
    for message in mail.messages:
        other = bob.email if message["To"] == alice.email else alice.email
        assert other not in body(message)


def test_next_digest_is_at_the_users_time():
    preferences = ReminderPreferences(user_id=1, digest_at=time(7))
    for now, expected in [
        ("2026-11-23T05:59", "2026-11-23T06:00"),
        ("2026-11-23T06:00", "2026-11-24T06:00"),
        ("2026-03-28T12:00", "2026-03-29T05:00"),
    ]:
        digest = preferences.next_digest(_utc(now), ZoneInfo("Europe/Berlin"))
        assert digest is not None
        assert digest[1] == _utc(expected)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_digest_takes_what_is_due_just_before_it(note: Note, prefer: Prefer):
    """The sweep that finds the reminder runs a moment after the time of the digest."""
    due = timezone.now().replace(hour=7, minute=0, second=0, microsecond=0) + timedelta(days=1)
    prefer(note.user, digest_at=time(7))
    make_reminder(note, scheduled_at=due - timedelta(minutes=10))
    sweep_at(due + timedelta(seconds=1))
    delivery = Delivery.objects.get()
    assert delivery.next_attempt_at == due
