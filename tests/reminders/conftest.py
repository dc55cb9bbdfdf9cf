"""The far ends of reminders, and alice's note."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from rest_framework.test import APIClient

from notes.models import Note
from reminders.models import ReminderPreferences
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.mail import MailServer, WebServer
from tests.helpers.reminders import Post, Prefer, in_hours


@pytest.fixture(scope="session")
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.stop()


@pytest.fixture
def mail(mail_server: MailServer, settings) -> MailServer:
    """The mail server of this process: empty, and it accepts everything."""
    mail_server.messages.clear()
    mail_server.answer = lambda message: "250 OK"
    mail_server.refuse_recipient = ""
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", mail_server.port
    return mail_server


@pytest.fixture
def hook(settings) -> Iterator[WebServer]:
    """A server for webhooks, in an allowed network."""
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def note(alice: User) -> Note:
    return make_note(alice)


@pytest.fixture
def create(api: APIClient, note: Note) -> Post:
    """create(rrule=…) creates a reminder of alice's over HTTP, due in an hour by default."""

    def post(**fields) -> dict[str, Any]:
        body = {"note_id": note.pk, "scheduled_at": in_hours(1)} | fields
        response = api.post("/reminders", body)
        assert response.status_code == 201, response.content
        created: dict[str, Any] = response.json()
        return created

    return post


@pytest.fixture
def prefer(db: None) -> Prefer:
    """prefer(alice, digest_at=…) stores preferences of a user."""

    def store(user: User, **fields) -> ReminderPreferences:
        preferences = ReminderPreferences.for_user(user)
        for name, value in fields.items():
            setattr(preferences, name, value)
        preferences.save()
        return preferences

    return store
