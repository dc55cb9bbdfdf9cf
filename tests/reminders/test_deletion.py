"""What is deleted while it is swept, claimed and recorded: one waits for the other, never both."""

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
from tests.conftest import client_of
from tests.mail import MailServer
from tests.processes import at_once, eventually
from tests.reminders.conftest import make_reminder, send, somebody_waits_for_a_lock, sweep

pytestmark = pytest.mark.django_db(transaction=True)


# --- What others do, as far as they get until somebody waits for them -----------------------


def record() -> Callable[[], object]:
    list(Reminder.objects.order_by("pk").select_for_update(no_key=True))
    return lambda: Delivery.objects.update(error="It was being sent.")


def claim() -> Callable[[], object]:
    """Of a digest: the first delivery is locked, and the second comes next."""
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
def test_deleting_waits_for_what_is_under_way(
    note: Note, delete: Callable[[Note], object], work: Callable[[], Callable[[], object]]
):
    for _ in range(2):
        make_reminder(note, rrule="FREQ=DAILY")
    sweep()
    held = Event()

    def work_or_delete(number: int) -> None:
        if number:
            held.wait(10)
            delete(note)
            return
        with transaction.atomic():
            goes_on = work()
            held.set()
            eventually(somebody_waits_for_a_lock, timeout=20)
            goes_on()

    at_once(2, work_or_delete)
    assert not Reminder.objects.exists()
    assert not Delivery.objects.exists()


def test_a_user_goes_while_everything_is_swept_and_sent(mail: MailServer, note: Note, bob: User):
    """Nobody deadlocks, and what others have is sent once all the same."""
    his = Note.objects.create(user=bob, title="His")
    for each in (note, his) * 25:
        make_reminder(each, channels=["email", "in_app"])

    def work(number: int) -> None:
        if number == 0:
            eventually(Delivery.objects.filter(status="sent").exists)
            note.user.delete()
        for _ in range(3):
            sweep()
            send()

    at_once(4, work)
    send()
    assert set(Reminder.objects.values_list("user", "status")) == {(bob.pk, "sent")}
    assert Delivery.objects.filter(status="sent").count() == 50
    received = [message["Message-ID"] for message in mail.messages if message["To"] == bob.email]
    assert len(received) == len(set(received)) == 25


def test_all_are_not_deleted_by_mistake(note: Note):
    assert not hasattr(Note.objects, "delete")
    assert not hasattr(note.reminders, "delete")
