"""Signed links in mails: what they do, how often, and which are rejected."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core import signing
from django.test import Client
from django.utils import timezone

from notes.models import Note
from reminders.links import ACTIONS, SALT, action_url
from reminders.models import Delivery, Reminder
from tests.helpers.factories import make_reminder
from tests.helpers.mail import MailServer, body
from tests.helpers.reminders import deliver


@pytest.fixture
def delivery(mail: MailServer, note: Note) -> Delivery:
    return deliver(make_reminder(note, rrule="FREQ=DAILY"))


@pytest.fixture
def reminder(delivery: Delivery) -> Reminder:
    return delivery.reminder


def path(url: str) -> str:
    return url.removeprefix("http://localhost:8000")


def test_links_of_a_mail_snooze_and_cancel(reminder: Reminder, mail: MailServer):
    client = Client(enforce_csrf_checks=True)
    hour, day, cancel = re.findall(r"http\S+", body(mail.messages[0]))
    for url, distance in ((hour, timedelta(hours=1)), (day, timedelta(days=1))):
        answer = client.post(path(url))
        assert "Done" in answer.content.decode()
        reminder.refresh_from_db()
        expected = datetime.now(UTC) + distance
        assert abs(reminder.scheduled_at - expected) < timedelta(minutes=5)
    assert client.post(path(cancel)).status_code == 200
    reminder.refresh_from_db()
    assert reminder.status == "cancelled"


def test_unsubscribe_header_cancels_with_one_post(reminder: Reminder, mail: MailServer):
    """RFC 8058: the mail program's own button sends one POST without a cookie."""
    url = mail.messages[0]["List-Unsubscribe"].strip(" <>")
    answer = Client(enforce_csrf_checks=True).post(
        path(url), "List-Unsubscribe=One-Click", content_type="application/x-www-form-urlencoded"
    )
    assert answer.status_code == 200
    reminder.refresh_from_db()
    assert reminder.status == "cancelled"


@pytest.mark.parametrize("action", ACTIONS)
def test_link_changes_nothing_when_it_is_only_opened(
    client: Client, delivery: Delivery, action: str
):
    before = Reminder.objects.values().get()
    page = client.get(path(action_url(delivery, action)))
    assert page.status_code == 200
    assert "<button" in page.content.decode()
    assert Reminder.objects.values().get() == before


def test_cancel_link_works_once(client: Client, delivery: Delivery):
    for _ in range(2):
        assert "Done" in client.post(path(action_url(delivery, "cancel"))).content.decode()
    assert "can no longer" in client.post(path(action_url(delivery, "snooze-1h"))).content.decode()


def test_snooze_link_changes_nothing_the_second_time(
    client: Client, mail: MailServer, delivery: Delivery
):
    url, reminder = path(action_url(delivery, "snooze-1h")), delivery.reminder
    assert "Done: you will be reminded again on " in client.post(url).content.decode()
    reminder.refresh_from_db()
    until = reminder.scheduled_at
    answer = client.post(url).content.decode()
    assert (
        f"Already snoozed: you will be reminded again on {until:%A, %-d %B %Y, %H:%M} (UTC)."
        in answer
    )
    reminder.refresh_from_db()
    assert reminder.scheduled_at == until
    # After the next reminder, its mail has a new link.
    Reminder.objects.update(scheduled_at=timezone.now(), rrule="")
    newer = deliver(reminder)
    assert "have been reminded again since" in client.post(url).content.decode()
    assert "Done" in client.post(path(action_url(newer, "snooze-1h"))).content.decode()


def test_page_escapes_the_title(client: Client, delivery: Delivery, note: Note):
    Note.objects.filter(pk=note.pk).update(title="<script>alert(1)</script>")
    assert "<script>" not in client.get(path(action_url(delivery, "cancel"))).content.decode()


def test_forged_expired_and_orphaned_links_are_404(client: Client, delivery: Delivery, monkeypatch):
    reminder = delivery.reminder
    url = path(action_url(delivery, "cancel"))
    token = url.rsplit("/", 1)[1]
    forged = [
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token.swapcase(),
        signing.dumps([reminder.pk, "cancel", 0], salt="another"),
        signing.dumps([reminder.pk, "cancel", 0], salt=SALT, key="another key"),
        signing.dumps([reminder.pk, "cancel"], salt=SALT),
        "a:b:c",
        "a",
    ]
    for wrong in forged:
        assert client.post(f"/reminders/links/{wrong}").status_code == 404
    assert Reminder.objects.get().status == "pending"
    monkeypatch.setattr("reminders.links.VALID_FOR", timedelta(seconds=-1))
    assert client.post(url).status_code == 404
    monkeypatch.undo()
    reminder.delete()
    assert client.post(url).status_code == 404
