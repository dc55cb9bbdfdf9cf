from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from notes.models import Note
from reminders.models import Delivery, Reminder
from reminders.sweep import database_now
from reminders.sweep import sweep as sweep_at
from reminders.tasks import send_deliveries
from scribes.models import User
from tests.mail import MailServer, WebServer


@pytest.fixture(scope="session")
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.stop()


@pytest.fixture
def mail(mail_server: MailServer, settings) -> MailServer:
    """Empty, obliging, and where this process sends its mail."""
    mail_server.messages.clear()
    mail_server.answer = lambda message: "250 OK"
    mail_server.refuse_recipient = ""
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", mail_server.port
    return mail_server


@pytest.fixture
def hook(settings) -> Iterator[WebServer]:
    """The far end of a webhook, in a network that is allowed."""
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def note(alice: User) -> Note:
    return Note.objects.create(user=alice, title="Rest", content="Beside the still waters.")


def make_reminder(note: Note, *, due_in: timedelta = timedelta(seconds=-1), **fields) -> Reminder:
    """As the API would have stored it, but due in the past."""
    due = (timezone.now() + due_in).replace(microsecond=0)
    start = due.replace(tzinfo=None)
    defaults = {
        "user": note.user,
        "scheduled_at": due,
        "start_date": start.date(),
        "start_time": start.time(),
        "time_zone": "UTC",
    }
    return Reminder.objects.create(note=note, **(defaults | fields))


def make_many(
    note: Note, number: int, *, over: timedelta = timedelta(minutes=10), **fields
) -> None:
    """So many due reminders, spread over the time until now."""
    now = timezone.now().replace(microsecond=0)
    start = now.replace(tzinfo=None)
    Reminder.objects.bulk_create(
        Reminder(
            user=note.user,
            note=note,
            scheduled_at=now - over * n / number,
            start_date=start.date(),
            start_time=start.time(),
            time_zone="UTC",
            **fields,
        )
        for n in range(number)
    )


def sweep() -> int:
    return sweep_at(database_now())


def send() -> None:
    """All that is ready, as a worker that gets the sweep's message would."""
    send_deliveries([str(pk) for pk in Delivery.objects.ready().values_list("pk", flat=True)])


def deliver(reminder: Reminder) -> Delivery:
    """Sweep and send; the reminder's newest delivery as it is then."""
    sweep()
    send()
    reminder.refresh_from_db()
    return reminder.deliveries.latest("occurrence_at")


def again(delivery: Delivery) -> Delivery:
    """The next attempt, as if its time had come."""
    Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=timezone.now())
    send_deliveries([str(delivery.pk)])
    delivery.refresh_from_db()
    return delivery


def outcomes(delivery: Delivery) -> list[str]:
    return list(delivery.log.values_list("outcome", flat=True))


def in_hours(hours: float) -> str:
    return (timezone.now() + timedelta(hours=hours)).isoformat()


Post = Callable[..., dict[str, Any]]


@pytest.fixture
def create(api: APIClient, note: Note) -> Post:
    """create(rrule=…): alice's new reminder as the API answers it; in an hour if not said."""

    def post(**fields) -> dict[str, Any]:
        response = api.post(
            "/reminders", {"note_id": note.pk, "scheduled_at": in_hours(1)} | fields
        )
        assert response.status_code == 201, response.content
        made: dict[str, Any] = response.json()
        return made

    return post


@pytest.fixture
def commits(
    django_capture_on_commit_callbacks,
) -> Callable[[], AbstractContextManager[list[Callable[[], Any]]]]:
    """A block after which its messages are sent, as if its transaction had been committed."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def local(moment: str) -> datetime:
    """The wall-clock time of an ISO time with an offset."""
    return datetime.fromisoformat(moment).replace(tzinfo=None)
