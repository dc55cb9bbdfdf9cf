"""One delivery on its way: what is retried, what is not, and that nothing is sent twice."""

from __future__ import annotations

from datetime import timedelta
from threading import Event
from zoneinfo import ZoneInfo

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from notes.models import Note
from reminders.models import Delivery
from reminders.retrying import retry_due_deliveries
from reminders.sending import MAX_ATTEMPTS, backoff
from reminders.tasks import send_deliveries
from scribes.messaging.broker import queue_length
from scribes.models import User
from tests.helpers.factories import make_note, make_reminder
from tests.helpers.mail import MailServer, body
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually, run_concurrently
from tests.helpers.reminders import deliver, outcomes, retry, send, sweep
from tests.helpers.servers import delete_queues

# --- The mail -------------------------------------------------------------------------------


def test_mail_has_text_html_headers_and_links(mail: MailServer, note: Note):
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


def test_mail_says_so_when_it_is_late(mail: MailServer, note: Note):
    deliver(make_reminder(note, due_in=-timedelta(hours=1)))
    (message,) = mail.messages
    for kind in ("plain", "html"):
        assert "Sorry, this reminder is late." in body(message, kind)


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
def test_title_cannot_add_a_header(mail: MailServer, note: Note, title: str):
    Note.objects.filter(pk=note.pk).update(title=title)
    assert deliver(make_reminder(note)).status == "sent"
    (message,) = mail.messages
    assert message["Bcc"] is None
    assert message["X-Evil"] is None
    assert message["To"] == "alice@example.com"
    assert "\n" not in message["Subject"]


# --- Retries and failures -------------------------------------------------------------------


@pytest.mark.parametrize("where", ["recipient", "message"])
@pytest.mark.parametrize("code", [421, 450, 451, 452])
def test_smtp_4xx_is_retried(mail: MailServer, note: Note, where: str, code: int):
    reject(mail, where, f"{code} Come back later")
    reminder = make_reminder(note)
    delivery = deliver(reminder)
    assert (delivery.status, reminder.status) == ("pending", "sending")
    assert f"{code}" in delivery.error or "Disconnected" in delivery.error
    assert delivery.next_attempt_at > timezone.now() + timedelta(seconds=20)
    send()
    assert outcomes(delivery) == ["postponed"]
    accept(mail)
    assert retry(delivery).status == "sent"
    assert outcomes(delivery) == ["postponed", "sent"]
    reminder.refresh_from_db()
    assert reminder.status == "sent"


def reject(mail: MailServer, where: str, answer: str) -> None:
    if where == "recipient":
        mail.refuse_recipient = answer
    else:
        mail.answer = lambda message: answer


def accept(mail: MailServer) -> None:
    mail.refuse_recipient = ""
    mail.answer = lambda message: "250 OK"


@pytest.mark.parametrize("where", ["recipient", "message"])
@pytest.mark.parametrize("code", [550, 552, 554])
def test_smtp_5xx_fails_at_once(mail: MailServer, note: Note, where: str, code: int):
    reject(mail, where, f"{code} Never")
    reminder = make_reminder(note)
    delivery = deliver(reminder)
    assert (delivery.status, reminder.status) == ("failed", "failed")
    assert delivery.error == f"SMTP {code}: Never"
    assert outcomes(delivery) == ["failed"]
    assert mail.messages == []


def test_reason_is_stored_with_nul_escaped(mail: MailServer, note: Note):
    """PostgreSQL stores no NUL, but a server may answer with one."""
    mail.answer = lambda message: "554 No\0thing"
    delivery = deliver(make_reminder(note))
    assert (delivery.status, delivery.error) == ("failed", "SMTP 554: No\\0thing")


def test_rejected_message_does_not_stop_the_batch(mail: MailServer, note: Note, alice: User):
    bad = make_note(alice, "Bad")
    mail.answer = lambda message: "554 No" if "Bad" in message["Subject"] else "250 OK"
    for each in (bad, note, bad, note):
        make_reminder(each)
    sweep()
    send()
    statuses = Delivery.objects.order_by("reminder_id").values_list("status", flat=True)
    assert list(statuses) == ["failed", "sent", "failed", "sent"]


def test_mail_server_that_is_down_is_tried_once_per_batch(
    mail: MailServer, note: Note, bob: User, settings
):
    settings.EMAIL_PORT = 1
    for each in (note, note, make_note(bob)):
        make_reminder(each)
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
    retry(tried)
    send()
    assert len(mail.copies()) == len(mail.messages) == 3


def test_delivery_fails_after_the_last_attempt(mail: MailServer, note: Note):
    mail.answer = lambda message: "451 Later"
    reminder = make_reminder(note)
    sweep()
    Delivery.objects.update(attempts=MAX_ATTEMPTS - 1)
    delivery = deliver(reminder)
    assert (delivery.status, reminder.status) == ("failed", "failed")
    assert delivery.error == f"Given up after {MAX_ATTEMPTS} attempts: SMTP 451: Later"


def test_backoff_grows_up_to_a_day_with_jitter():
    for attempts in range(1, MAX_ATTEMPTS):
        full = min(timedelta(minutes=1) * 3 ** (attempts - 1), timedelta(days=1))
        drawn = {backoff(attempts) for _ in range(20)}
        assert len(drawn) > 1
        assert full / 2 <= min(drawn)
        assert max(drawn) <= full


def test_disabled_account_gets_nothing(mail: MailServer, note: Note, alice: User):
    User.objects.filter(pk=alice.pk).update(is_active=False)
    delivery = deliver(make_reminder(note))
    assert (delivery.status, mail.messages) == ("failed", [])


def test_reminder_is_sent_when_one_channel_succeeds(mail: MailServer, note: Note):
    mail.answer = lambda message: "554 Never"
    reminder = make_reminder(note, channels=["email", "in_app"])
    deliver(reminder)
    assert reminder.status == "sent"
    assert dict(reminder.deliveries.values_list("channel", "status")) == {
        "email": "failed",
        "in_app": "sent",
    }


# --- Not twice ------------------------------------------------------------------------------


def test_repeated_message_sends_nothing(mail: MailServer, note: Note):
    delivery = deliver(make_reminder(note))
    send_deliveries([str(delivery.pk)])
    send_deliveries([str(delivery.pk)] * 3)
    assert (len(mail.messages), delivery.log.count()) == (1, 1)


@pytest.mark.usefixtures("transactional_db")
def test_eight_processes_with_one_message_send_once(mail: MailServer, note: Note):
    for _ in range(20):
        make_reminder(note)
    sweep()
    ids = [str(pk) for pk in Delivery.objects.values_list("pk", flat=True)]
    run_concurrently(8, lambda n: send_deliveries(ids))
    assert len(mail.messages) == len(mail.copies()) == 20
    assert set(Delivery.objects.values_list("status", "attempts")) == {("sent", 1)}


@pytest.mark.usefixtures("transactional_db")
@pytest.mark.parametrize(("answer", "arrived"), [("250 OK", 1), ("451 Later", 0)])
@pytest.mark.parametrize("rrule", ["", "FREQ=DAILY"])
def test_delivery_is_not_retried_when_snoozed_meanwhile(
    mail: MailServer, note: Note, answer: str, arrived: int, rrule: str
):
    """The delivery in progress counts as sent, and the snooze is an occurrence of its own."""
    reminder = make_reminder(note, rrule=rrule)
    next_time = reminder.scheduled_at + timedelta(days=1)
    sweep()
    in_progress, snoozed = Event(), Event()

    def answer_after_the_snooze(message) -> str:
        in_progress.set()
        assert snoozed.wait(LONGEST_WAIT_SECONDS)
        return answer

    def send_or_snooze(number: int) -> None:
        if number:
            assert in_progress.wait(LONGEST_WAIT_SECONDS)
            assert reminder.snooze(timezone.now() + timedelta(seconds=1))
            snoozed.set()
        else:
            send()

    mail.answer = answer_after_the_snooze
    run_concurrently(2, send_or_snooze)
    first = reminder.deliveries.get()
    assert first.status == ("sent" if arrived else "cancelled")
    reminder.refresh_from_db()
    assert reminder.status == "pending"
    accept(mail)
    Delivery.objects.update(next_attempt_at=timezone.now())
    retry_due_deliveries()
    send()
    assert len(mail.messages) == arrived
    eventually(lambda: sweep() == 1)
    send()
    reminder.refresh_from_db()
    assert len(mail.messages) == len(mail.copies()) == arrived + 1
    if rrule:
        assert (reminder.status, reminder.scheduled_at) == ("pending", next_time)
    else:
        assert reminder.status == "sent"


def test_pending_delivery_is_cancelled_with_its_reminder(mail: MailServer, note: Note):
    reminder = make_reminder(note)
    sweep()
    assert reminder.cancel()
    send()
    assert (reminder.deliveries.get().status, mail.messages) == ("cancelled", [])


# --- Long batches ---------------------------------------------------------------------------


@pytest.mark.usefixtures("servers")
def test_batch_continues_in_a_new_message_when_it_takes_long(
    mail: MailServer, note: Note, run_on_commit, monkeypatch
):
    delete_queues()
    monkeypatch.setattr("reminders.sending.SEND_SECONDS", 0)
    make_reminder(note)
    sweep()
    before = Delivery.objects.get().dispatched_at
    with run_on_commit():
        send()
    assert mail.messages == []
    assert queue_length("reminders") == 1
    delivery = Delivery.objects.get()
    assert delivery.dispatched_at is not None
    assert before is not None
    assert delivery.dispatched_at > before
    delete_queues()
