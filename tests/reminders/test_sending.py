"""One delivery's way to the far end: what is tried again, what is not, and that none goes twice."""

from __future__ import annotations

from datetime import timedelta
from threading import Event
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings as django_settings
from django.db import transaction
from django.utils import timezone

from jobs.broker import queue_length
from notes.models import Note
from reminders.models import Delivery, DeliveryAttempt, Notification, Reminder
from reminders.sending import MAX_ATTEMPTS, delay, notify, release_expired, resend, wait
from reminders.tasks import send_deliveries
from scribes.models import User
from tests.conftest import forget_queues
from tests.mail import MailServer, body
from tests.processes import at_once, eventually
from tests.reminders.conftest import (
    again,
    deliver,
    make_reminder,
    outcomes,
    send,
    somebody_waits_for_a_lock,
    sweep,
)


def test_an_e_mail_as_it_arrives(mail: MailServer, note: Note):
    reminder = make_reminder(note, message="Read it <again> & again", time_zone="Europe/Berlin")
    delivery = deliver(reminder)
    (message,) = mail.messages
    assert message["To"] == "alice@example.com"
    assert message["From"] == django_settings.DEFAULT_FROM_EMAIL
    assert message["Subject"] == "Reminder: Rest"
    assert message["Message-ID"] == f"<{delivery.pk}@localhost>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert "Read it <again> & again" in body(message)
    due = delivery.occurrence_at.astimezone(ZoneInfo("Europe/Berlin"))
    for kind in ("plain", "html"):
        assert f"{due:%H:%M} (Europe/Berlin)" in body(message, kind)
    assert "Read it &lt;again&gt; &amp; again" in body(message, "html")
    assert body(message).count("http://localhost:8000/reminders/links/") == 3
    assert (delivery.status, delivery.attempts, outcomes(delivery)) == ("sent", 1, ["sent"])


@pytest.mark.parametrize(
    "title",
    [
        "Rest\r\nBcc: eve@example.com",
        "Rest\nX-Evil: 1\n\nA body",
        "Rest\x0b\x85\u2028\u2029Bcc: eve@example.com",
        "=?utf-8?q?Rest=0D=0ABcc:_eve@example.com?=",
        "x" * 300,
        "主の平安 🕊 " + "é" * 200,
        "\x01\x7f",
    ],
)
def test_a_title_gets_into_no_other_header(mail: MailServer, note: Note, title: str):
    Note.objects.filter(pk=note.pk).update(title=title)
    assert deliver(make_reminder(note)).status == "sent"
    (message,) = mail.messages
    assert message["Bcc"] is None
    assert message["X-Evil"] is None
    assert message["To"] == "alice@example.com"
    assert "\n" not in message["Subject"]


@pytest.mark.parametrize("where", ["recipient", "message"])
@pytest.mark.parametrize("code", [421, 450, 451, 452])
def test_smtp_4xx_is_tried_again(mail: MailServer, note: Note, where: str, code: int):
    refuse(mail, where, f"{code} Come back later")
    reminder = make_reminder(note)
    delivery = deliver(reminder)
    assert (delivery.status, reminder.status) == ("pending", "sending")
    assert f"{code}" in delivery.error or "Disconnected" in delivery.error
    assert delivery.next_attempt_at > timezone.now() + timedelta(seconds=20)
    send()
    assert outcomes(delivery) == ["postponed"]
    relent(mail)
    assert again(delivery).status == "sent"
    assert outcomes(delivery) == ["postponed", "sent"]
    reminder.refresh_from_db()
    assert reminder.status == "sent"


def refuse(mail: MailServer, where: str, answer: str) -> None:
    if where == "recipient":
        mail.refuse_recipient = answer
    else:
        mail.answer = lambda message: answer


def relent(mail: MailServer) -> None:
    mail.refuse_recipient = ""
    mail.answer = lambda message: "250 OK"


@pytest.mark.parametrize("where", ["recipient", "message"])
@pytest.mark.parametrize("code", [550, 552, 554])
def test_smtp_5xx_fails_at_once(mail: MailServer, note: Note, where: str, code: int):
    refuse(mail, where, f"{code} Never")
    reminder = make_reminder(note)
    delivery = deliver(reminder)
    assert (delivery.status, reminder.status) == ("failed", "failed")
    assert delivery.error == f"SMTP {code}: Never"
    assert outcomes(delivery) == ["failed"]
    assert mail.messages == []


def test_a_refused_message_does_not_stop_the_next(mail: MailServer, note: Note, alice: User):
    bad = Note.objects.create(user=alice, title="Bad")
    mail.answer = lambda message: "554 No" if "Bad" in message["Subject"] else "250 OK"
    for each in (bad, note, bad, note):
        make_reminder(each)
    sweep()
    send()
    statuses = Delivery.objects.order_by("reminder_id").values_list("status", flat=True)
    assert list(statuses) == ["failed", "sent", "failed", "sent"]


def test_a_server_that_is_down_is_asked_once_a_batch(mail: MailServer, note: Note, settings):
    settings.EMAIL_PORT = 1
    for _ in range(3):
        make_reminder(note)
    make_reminder(note, channels=["in_app"])
    sweep()
    send()
    states = sorted(Delivery.objects.values_list("channel", "status", "attempts"))
    assert states == [
        ("email", "pending", 0),
        ("email", "pending", 0),
        ("email", "pending", 1),
        ("in_app", "sent", 1),
    ]
    tried = Delivery.objects.get(channel="email", attempts=1)
    assert "cannot be reached" in tried.error
    settings.EMAIL_PORT = mail.port
    again(tried)
    send()
    assert len(mail.copies()) == len(mail.messages) == 3


def test_after_the_last_attempt_it_has_failed(mail: MailServer, note: Note):
    mail.answer = lambda message: "451 Later"
    reminder = make_reminder(note)
    sweep()
    Delivery.objects.update(attempts=MAX_ATTEMPTS - 1)
    delivery = deliver(reminder)
    assert (delivery.status, reminder.status) == ("failed", "failed")
    assert delivery.error == f"Given up after {MAX_ATTEMPTS} attempts: SMTP 451: Later"


def test_delays_grow_up_to_a_day_and_differ():
    for attempts in range(1, MAX_ATTEMPTS):
        full = min(timedelta(minutes=1) * 3 ** (attempts - 1), timedelta(days=1))
        drawn = {delay(attempts) for _ in range(20)}
        assert len(drawn) > 1
        assert full / 2 <= min(drawn)
        assert max(drawn) <= full


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("120", timedelta(seconds=120)),
        ("0", timedelta(seconds=1)),
        ("999999999999999", timedelta(days=1)),
        ("Wed, 01 Jan 2020 00:00:00 GMT", timedelta(seconds=1)),
        ("Wed, 01 Jan 2098 00:00:00 GMT", timedelta(days=1)),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("9" * 5000, None),
        ("Wed, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after(header: str, expected: timedelta | None):
    assert wait(header, timezone.now()) == expected


def test_a_disabled_account_gets_nothing(mail: MailServer, note: Note, alice: User):
    User.objects.filter(pk=alice.pk).update(is_active=False)
    delivery = deliver(make_reminder(note))
    assert (delivery.status, mail.messages) == ("failed", [])


def test_one_channel_that_arrives_is_enough(mail: MailServer, note: Note):
    mail.answer = lambda message: "554 Never"
    reminder = make_reminder(note, channels=["email", "in_app"])
    deliver(reminder)
    assert reminder.status == "sent"
    assert dict(reminder.deliveries.values_list("channel", "status")) == {
        "email": "failed",
        "in_app": "sent",
    }


# --- Not twice ------------------------------------------------------------------------------


def test_a_message_delivered_again_sends_nothing(mail: MailServer, note: Note):
    delivery = deliver(make_reminder(note))
    send_deliveries([str(delivery.pk)])
    send_deliveries([str(delivery.pk)] * 3)
    assert (len(mail.messages), delivery.log.count()) == (1, 1)


@pytest.mark.usefixtures("transactional_db")
def test_eight_processes_with_one_message_send_it_once(mail: MailServer, note: Note):
    for _ in range(20):
        make_reminder(note)
    sweep()
    ids = [str(pk) for pk in Delivery.objects.values_list("pk", flat=True)]
    at_once(8, lambda n: send_deliveries(ids))
    assert len(mail.messages) == len(mail.copies()) == 20
    assert set(Delivery.objects.values_list("status", "attempts")) == {("sent", 1)}


def test_who_lost_the_lease_writes_nothing(mail: MailServer, note: Note):
    """While the mail is under way its lease runs out, and another process sends it, too."""
    reminder = make_reminder(note)
    sweep()
    (delivery,) = reminder.deliveries.all()

    claimed = Delivery.claim(delivery)
    assert len(claimed) == 1
    lose_leases()
    send_deliveries([str(delivery.pk)])
    assert not claimed[0].record("failed", "I had enough", status="failed")  # type: ignore[arg-type]
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts, delivery.error) == ("sent", 2, "")
    assert outcomes(delivery) == ["lost", "sent"]


def lose_leases() -> None:
    Delivery.objects.sending().update(lease_expires_at="2000-01-01T00:00:00Z")
    resend()


def test_cancelled_while_it_is_sent_it_is_not_tried_again(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    (delivery,) = Delivery.claim(reminder.deliveries.get())
    assert reminder.cancel()
    lose_leases()
    delivery.refresh_from_db()
    assert delivery.status == "cancelled"
    send()
    assert mail.messages == []


@pytest.mark.usefixtures("transactional_db")
@pytest.mark.parametrize(("answer", "arrived"), [("250 OK", 1), ("451 Later", 0)])
@pytest.mark.parametrize("rrule", ["", "FREQ=DAILY"])
def test_snoozed_while_it_is_sent_it_is_not_tried_again_and_comes_then(
    mail: MailServer, note: Note, answer: str, arrived: int, rrule: str
):
    """What is under way counts as sent, and the snooze is an occurrence of its own."""
    reminder = make_reminder(note, rrule=rrule)
    following = reminder.scheduled_at + timedelta(days=1)
    sweep()
    under_way, snoozed = Event(), Event()

    def take(message) -> str:
        under_way.set()
        assert snoozed.wait(20)
        return answer

    def send_or_snooze(number: int) -> None:
        if number:
            assert under_way.wait(20)
            assert reminder.snooze(timezone.now() + timedelta(seconds=1))
            snoozed.set()
        else:
            send()

    mail.answer = take
    at_once(2, send_or_snooze)
    first = reminder.deliveries.get()
    assert first.status == ("sent" if arrived else "cancelled")
    reminder.refresh_from_db()
    assert reminder.status == "pending"
    relent(mail)
    Delivery.objects.update(next_attempt_at=timezone.now())
    resend()
    send()
    assert len(mail.messages) == arrived
    eventually(lambda: sweep() == 1)
    send()
    reminder.refresh_from_db()
    assert len(mail.messages) == len(mail.copies()) == arrived + 1
    if rrule:
        assert (reminder.status, reminder.scheduled_at) == ("pending", following)
    else:
        assert reminder.status == "sent"


@pytest.mark.usefixtures("transactional_db")
def test_who_records_before_the_release_goes_first(mail: MailServer, note: Note):
    """The lease has run out, but the mail server's answer came in time for the record."""
    reminder = make_reminder(note)
    sweep()
    (claimed,) = Delivery.claim(reminder.deliveries.get())
    Delivery.objects.update(lease_expires_at=timezone.now())
    held = Event()

    def record_or_release(number: int) -> None:
        if number:
            held.wait(10)
            release_expired()
            return
        with transaction.atomic():
            Reminder.objects.select_for_update(no_key=True).get(pk=reminder.pk)
            held.set()
            eventually(somebody_waits_for_a_lock, timeout=20)
            assert claimed.record(DeliveryAttempt.Outcome.SENT, "", status="sent")

    at_once(2, record_or_release)
    delivery = reminder.deliveries.get()
    assert (delivery.status, outcomes(delivery)) == ("sent", ["sent"])


def test_what_waits_goes_with_its_reminder(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    assert reminder.cancel()
    send()
    assert (reminder.deliveries.get().status, mail.messages) == ("cancelled", [])


# --- Again ----------------------------------------------------------------------------------


@pytest.fixture
def empty_queues(servers: None) -> None:
    forget_queues()


@pytest.mark.usefixtures("empty_queues")
def test_lost_messages_are_sent_again_but_not_at_once(note: Note, commits):
    make_reminder(note)
    sweep()
    with commits():
        resend()
    assert queue_length("reminders") == 0
    Delivery.objects.update(dispatched_at=timezone.now() - timedelta(minutes=2))
    with commits():
        resend()
        resend()
    assert queue_length("reminders") == 1


@pytest.mark.usefixtures("empty_queues")
def test_while_messages_wait_one_counts_as_lost_much_later(note: Note, commits):
    make_reminder(note)
    with commits():
        sweep()
    assert queue_length("reminders") == 1
    Delivery.objects.update(dispatched_at=timezone.now() - timedelta(minutes=2))
    with commits():
        resend()
    assert queue_length("reminders") == 1


@pytest.mark.usefixtures("empty_queues")
def test_what_takes_too_long_goes_on_in_another_message(
    mail: MailServer, note: Note, commits, monkeypatch
):
    monkeypatch.setattr("reminders.sending.SEND_SECONDS", 0)
    make_reminder(note)
    sweep()
    before = Delivery.objects.get().dispatched_at
    with commits():
        send()
    assert mail.messages == []
    assert queue_length("reminders") == 1
    delivery = Delivery.objects.get()
    assert delivery.dispatched_at is not None
    assert before is not None
    assert delivery.dispatched_at > before
    forget_queues()


@pytest.mark.usefixtures("empty_queues")
def test_what_is_to_be_tried_again_gets_a_message_when_its_time_comes(
    mail: MailServer, note: Note, commits
):
    mail.answer = lambda message: "451 Later"
    delivery = deliver(make_reminder(note))
    with commits():
        resend()
    assert queue_length("reminders") == 0
    Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=timezone.now())
    with commits():
        resend()
    assert queue_length("reminders") == 1
    forget_queues()


def test_a_dead_process_is_noted_and_made_up_for(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    Delivery.claim(reminder.deliveries.get())
    send()
    assert mail.messages == []
    lose_leases()
    send()
    assert outcomes(reminder.deliveries.get()) == ["lost", "sent"]
    assert len(mail.messages) == 1


def test_a_delivery_that_kills_every_process_ends(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    for _ in range(MAX_ATTEMPTS):
        assert Delivery.claim(reminder.deliveries.get())
        lose_leases()
    reminder.refresh_from_db()
    assert (reminder.deliveries.get().status, reminder.status) == ("failed", "failed")


# --- In-app ---------------------------------------------------------------------------------


def test_a_notification_is_one_row_even_after_a_crash(note: Note):
    reminder = make_reminder(note, channels=["in_app"], message="Now")
    sweep()
    (claimed,) = Delivery.claim(reminder.deliveries.get())
    notify(claimed)
    lose_leases()
    send()
    (notification,) = Notification.objects.all()
    assert (notification.title, notification.message) == ("Rest", "Now")
    assert Reminder.objects.get().status == "sent"
