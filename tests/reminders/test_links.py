"""The links in a mail: signed, without signing in, and harmless to look at."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.core import signing
from django.test import Client

from notes.models import Note
from reminders.links import ACTIONS, SALT, link
from reminders.models import Reminder
from tests.mail import MailServer, body
from tests.reminders.conftest import deliver, make_reminder


@pytest.fixture
def reminder(mail: MailServer, note: Note) -> Reminder:
    reminder = make_reminder(note, rrule="FREQ=DAILY")
    deliver(reminder)
    return reminder


def path(url: str) -> str:
    return url.removeprefix("http://localhost:8000")


def test_the_mails_own_links_snooze_and_cancel(reminder: Reminder, mail: MailServer):
    client = Client(enforce_csrf_checks=True)
    hour, day, cancel = re.findall(r"http\S+", body(mail.messages[0]))
    for url, distance in ((hour, timedelta(hours=1)), (day, timedelta(days=1))):
        answer = client.post(path(url))
        assert "Done" in answer.content.decode()
        reminder.refresh_from_db()
        expected = datetime.now(UTC) + distance
        assert abs(reminder.scheduled_at - expected) < timedelta(seconds=10)
    assert client.post(path(cancel)).status_code == 200
    reminder.refresh_from_db()
    assert reminder.status == "cancelled"


def test_the_mail_programs_own_button_is_one_post(reminder: Reminder, mail: MailServer):
    """RFC 8058."""
    url = mail.messages[0]["List-Unsubscribe"].strip(" <>")
    answer = Client(enforce_csrf_checks=True).post(
        path(url), "List-Unsubscribe=One-Click", content_type="application/x-www-form-urlencoded"
    )
    assert answer.status_code == 200
    reminder.refresh_from_db()
    assert reminder.status == "cancelled"


@pytest.mark.parametrize("action", ACTIONS)
def test_to_look_at_a_link_changes_nothing(client: Client, reminder: Reminder, action: str):
    before = Reminder.objects.values().get()
    page = client.get(path(link(reminder, action)))
    assert page.status_code == 200
    assert "<button" in page.content.decode()
    assert Reminder.objects.values().get() == before


def test_twice_is_once(client: Client, reminder: Reminder):
    for _ in range(2):
        assert "Done" in client.post(path(link(reminder, "cancel"))).content.decode()
    assert "can no longer" in client.post(path(link(reminder, "snooze-1h"))).content.decode()


def test_the_page_shows_a_title_as_text(client: Client, reminder: Reminder, note: Note):
    Note.objects.filter(pk=note.pk).update(title="<script>alert(1)</script>")
    assert "<script>" not in client.get(path(link(reminder, "cancel"))).content.decode()


def test_forged_old_and_orphaned_links_are_404(client: Client, reminder: Reminder, monkeypatch):
    url = path(link(reminder, "cancel"))
    token = url.rsplit("/", 1)[1]
    forged = [
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token.swapcase(),
        signing.dumps([reminder.pk, "cancel"], salt="another"),
        signing.dumps([reminder.pk, "cancel"], salt=SALT, key="another key"),
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
