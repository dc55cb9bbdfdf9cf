"""The table of channels, and what happens to a delivery over a channel that is not in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from notes.models import Note
from reminders.channels import CHANNELS, notify, parse_retry_after
from reminders.mail import Mailer
from reminders.models import Channel, Delivery, Notification, Reminder
from reminders.retrying import retry_due_deliveries
from tests.helpers.factories import make_reminder
from tests.helpers.mail import WebServer
from tests.helpers.reminders import Prefer, outcomes, send, sweep

# --- The table ------------------------------------------------------------------------------


def test_every_channel_has_an_entry():
    assert set(CHANNELS) == set(Channel.values)


@pytest.mark.usefixtures("mail")
def test_unknown_channel_is_not_recorded_as_sent(note: Note, caplog: pytest.LogCaptureFixture):
    """Its deliveries fail for now, with an error in the log, and the rest of the batch is sent."""
    unknown = [make_reminder(note, channels=[name]) for name in ("pigeon", "owl")]
    known = make_reminder(note, channels=["email", "in_app"])
    sweep()
    send()
    for reminder in unknown:
        delivery = reminder.deliveries.get()
        assert (delivery.status, outcomes(delivery)) == ("pending", ["postponed"])
        assert delivery.error == f"UnknownChannel: There is no channel “{delivery.channel}”."
    assert set(known.deliveries.values_list("status", flat=True)) == {"sent"}
    assert Notification.objects.count() == 1
    assert [record.levelname for record in caplog.records].count("ERROR") == 2


@pytest.mark.usefixtures("mail")
@pytest.mark.parametrize(
    "order", [["email", "in_app", "webhook"], ["webhook", "email", "in_app"]], ids=lambda o: o[0]
)
def test_batch_has_the_order_of_the_table(
    hook: WebServer, note: Note, prefer: Prefer, monkeypatch, order: list[str]
):
    table = {name: replace(spec, batch_order=order.index(name)) for name, spec in CHANNELS.items()}
    monkeypatch.setattr("reminders.channels.CHANNELS", table)
    prefer(note.user, webhook_url=hook.url)
    make_reminder(note, channels=["in_app", "webhook", "email"])
    sweep()
    send()
    sent = Delivery.objects.filter(status="sent").order_by("sent_at")
    assert list(sent.values_list("channel", flat=True)) == order


def test_webhooks_come_last_in_a_batch():
    last = max(CHANNELS, key=lambda name: CHANNELS[name].batch_order)
    assert last == Channel.WEBHOOK


# --- Retry-After ----------------------------------------------------------------------------


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
def test_parse_retry_after(header: str, expected: timedelta | None):
    assert parse_retry_after(header, timezone.now()) == expected


# --- In-app ---------------------------------------------------------------------------------


def test_notification_is_one_row_even_after_a_crash(note: Note):
    reminder = make_reminder(note, channels=["in_app"], message="Now")
    sweep()
    (claimed,) = Delivery.claim(reminder.deliveries.get())
    notify([claimed], Mailer())
    Delivery.objects.update(lease_expires_at=timezone.now())
    retry_due_deliveries()
    send()
    (notification,) = Notification.objects.all()
    assert (notification.title, notification.message) == ("Rest", "Now")
    assert Reminder.objects.get().status == "sent"
