"""Deleting what is being swept, claimed and recorded: one side waits for the other, never both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from threading import Event

import pytest
from django.db import transaction
from django.utils import timezone

from notes.models import Note
from reminders.models import Delivery, Reminder
from reminders.sweep import sweep as sweep_at
from scribes.models import User
from tests.helpers.database import is_lock_awaited
from tests.helpers.factories import make_note, make_reminder
from tests.helpers.mail import MailServer
from tests.helpers.people import client_of
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually, run_concurrently
from tests.helpers.reminders import send, sweep

pytestmark = pytest.mark.django_db(transaction=True)


# --- Work in progress: each function starts some and returns a function that finishes it ------


def record() -> Callable[[], object]:
    list(Reminder.objects.order_by("pk").select_for_update(no_key=True))
    return lambda: Delivery.objects.update(error="A test.")


def claim() -> Callable[[], object]:
    """Claim a digest: the first delivery is locked, and the second one follows."""
    first, second = Delivery.objects.order_by("pk").values_list("pk", flat=True)
    Delivery.objects.filter(pk=first).update(status="sending")
    return lambda: Delivery.objects.filter(pk=second).update(status="sending")


def sweep_tomorrow() -> Callable[[], object]:
    assert sweep_at(timezone.now() + timedelta(days=1)) == 2
    return lambda: None


# --- Deletions ------------------------------------------------------------------------------


def over_http(path: str) -> Callable[[Note], object]:
    def delete(note: Note) -> None:
        for pk in (note.pk,) if "notes" in path else note.reminders.values_list("pk", flat=True):
            assert client_of(note.user).delete(f"{path}/{pk}").status_code == 204

    return delete


DELETIONS: dict[str, Callable[[Note], object]] = {
    "reminders over HTTP": over_http("/reminders"),
    "a note over HTTP": over_http("/notes"),
    "reminders at once": lambda note: Reminder.objects.filter(user=note.user).delete(),
    "notes at once": lambda note: Note.objects.filter(user=note.user).delete(),
    "a user": lambda note: note.user.delete(),
    "users at once": lambda note: User.objects.filter(pk=note.user_id).delete(),
}


@pytest.mark.parametrize("work", [record, claim, sweep_tomorrow])
@pytest.mark.parametrize("delete", DELETIONS.values(), ids=DELETIONS.keys())
def test_delete_waits_for_work_in_progress(
    note: Note, delete: Callable[[Note], object], work: Callable[[], Callable[[], object]]
):
    for _ in range(2):
        make_reminder(note, rrule="FREQ=DAILY")
    sweep()
    held = Event()

    def work_or_delete(number: int) -> None:
        if number:
            held.wait(LONGEST_WAIT_SECONDS)
            delete(note)
            return
        with transaction.atomic():
            finish = work()
            held.set()
            eventually(is_lock_awaited)
            finish()

    run_concurrently(2, work_or_delete)
    assert not Reminder.objects.exists()
    assert not Delivery.objects.exists()


def test_user_is_deleted_while_reminders_are_swept_and_sent(
    mail: MailServer, note: Note, bob: User
):
    """Nothing deadlocks, and another user's reminders are sent once."""
    bobs_note = make_note(bob)
    for each in (note, bobs_note) * 25:
        make_reminder(each, channels=["email", "in_app"])

    def work(number: int) -> None:
        if number == 0:
            eventually(Delivery.objects.filter(status="sent").exists)
            note.user.delete()
        for _ in range(3):
            sweep()
            send()

    run_concurrently(4, work)
    send()
    assert set(Reminder.objects.values_list("user", "status")) == {(bob.pk, "sent")}
    assert Delivery.objects.filter(status="sent").count() == 50
    received = [message["Message-ID"] for message in mail.messages if message["To"] == bob.email]
    assert len(received) == len(set(received)) == 25


def test_managers_cannot_delete_all_rows_by_mistake(note: Note):
    assert not hasattr(Note.objects, "delete")
    assert not hasattr(note.reminders, "delete")
