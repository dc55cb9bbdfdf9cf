"""Everything that a server room does to reminders, counted at a real mail server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from jobs import broker as jobs_broker
from jobs.failpoints import REMINDER_NAMES
from notes.models import Note
from reminders import tasks
from reminders.models import Delivery, Reminder
from reminders.sweep import publish_deliveries
from scribes.models import User
from tests.chaos.harness import Account, Broker, House
from tests.chaos.test_chaos import crash_postgresql, publish_to
from tests.mail import MailServer
from tests.processes import at_once, eventually
from tests.reminders.conftest import make_many, sweep
from tests.reminders.test_recurrence import ZONES, check_nights
from tests.reminders.test_sweep import assert_the_sweep_reads_only_what_is_due

Rounds = Callable[[int, int], int]


@pytest.fixture
def mail() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.stop()


@pytest.fixture
def house(house: House, broker: Broker, mail: MailServer, monkeypatch) -> Iterator[House]:
    """Its workers send to the test's mail server; this process publishes to its broker."""
    house.env |= {"EMAIL_URL": mail.url, "REMINDER_TICK_SECONDS": "1"}
    publish_to(broker, monkeypatch)
    yield house
    jobs_broker._producers.cache_clear()


@pytest.fixture
def note(transactional_db: None) -> Note:
    return Note.objects.create(user=User.objects.create_user("alice@example.com"), title="Rest")


def all_ended() -> bool:
    return not Reminder.objects.filter(status__in=Reminder.ACTIVE).exists()


def check(account: Account, mail: MailServer, expected: int) -> None:
    """Count at the mail server what never came and what came twice."""
    assert Reminder.objects.filter(status="sent").count() == expected
    sent = {f"<{pk}@localhost>" for pk in Delivery.objects.values_list("pk", flat=True)}
    copies = mail.copies()
    account.lost = len(sent - copies.keys()) + expected - len(sent)
    account.duplicated = copies.total() - len(copies)
    assert copies.keys() <= sent


# --- 1. Once --------------------------------------------------------------------------------


def test_eight_sweeps_two_beats_and_repeated_messages(
    house: House, mail: MailServer, note: Note, rounds: Rounds, account: Account
):
    number = rounds(100, 10_000)
    account.rounds, account.faults = 1, 8
    for _ in range(2):
        house.beat()
    house.ready_worker()
    make_many(note, number)
    found = at_once(8, lambda n: sweep())
    ids = list(Delivery.objects.values_list("pk", flat=True))
    publish_deliveries(ids)
    publish_deliveries(reversed(ids))
    start = time.monotonic()
    eventually(all_ended, timeout=600)
    account.recoveries.append(time.monotonic() - start)
    time.sleep(1)
    check(account, mail, number)
    assert sum(found) <= number
    assert (account.lost, account.duplicated) == (0, 0)
    assert Delivery.objects.exclude(attempts=1).count() == 0


# --- 2. Nothing is lost ---------------------------------------------------------------------


def test_reminders_killed_exactly(
    house: House,
    mail: MailServer,
    note: Note,
    rounds: Rounds,
    account: Account,
    tmp_path: Path,
):
    """A process is killed at each named place in turn; a sweep a second stands for one a quarter."""
    flags = {name: tmp_path / name for name in REMINDER_NAMES}
    points = ",".join(f"{name}:kill:{flag}" for name, flag in flags.items())
    house.beat()
    house.ready_worker(FAILPOINT=points, REMINDER_LEASE_SECONDS="2")
    duplicated: Counter[str] = Counter()
    kills = rounds(1, 10)
    for number, (name, flag) in enumerate(list(flags.items()) * kills, 1):
        mail.messages.clear()
        Delivery.objects.all().delete()
        Reminder.objects.all().delete()
        flag.touch()
        make_many(note, 10)
        start = time.monotonic()
        eventually(lambda flag=flag: until_killed(flag), timeout=60)  # type: ignore[misc]
        account.recoveries.append(time.monotonic() - start)
        check(account, mail, 10)
        assert account.lost == 0, name
        duplicated[name] += account.duplicated
        account.rounds = account.faults = number
    account.duplicated = duplicated.total()
    assert +duplicated == Counter(after_send=kills)


def until_killed(flag: Path) -> bool:
    """Ticks as beat does, until the kill has happened and everything has ended nevertheless."""
    jobs_broker.send(tasks.sweep, (), "reminders", says="sweep")
    lose_a_message()
    time.sleep(0.3)
    return not flag.exists() and all_ended()


def lose_a_message() -> None:
    """Of something that is sent already, so that a resend always has something to send."""
    sent = Delivery.objects.filter(status="sent").first()
    if sent:
        Delivery.objects.pending().update(dispatched_at=None)


def test_mail_server_redis_and_postgresql_down(
    house: House, broker: Broker, mail: MailServer, note: Note, rounds: Rounds, account: Account
):
    """One after the other, while reminders are due. The wait after a failed attempt is cut short."""
    number = rounds(20, 2000)
    house.beat()
    house.ready_worker(REMINDER_LEASE_SECONDS="2")
    account.rounds, account.faults = 1, 3
    mail.stop()
    make_many(note, number)
    sweep()
    eventually(Delivery.objects.filter(attempts__gt=0).exists)
    mail.start()
    broker.client.flushall()
    crash_postgresql()
    Delivery.objects.pending().update(next_attempt_at=timezone.now())
    start = time.monotonic()
    eventually(all_ended, timeout=300)
    account.recoveries.append(time.monotonic() - start)
    check(account, mail, number)
    assert account.lost == 0
    # The crash may fall between the mail server's answer and our commit, in each of two processes.
    assert account.duplicated <= 2


# --- 3. After an outage ---------------------------------------------------------------------


def test_six_hours_down_over_due_reminders(
    house: House, mail: MailServer, note: Note, rounds: Rounds, account: Account
):
    """A worker's start is all that it takes."""
    number = rounds(100, 10_000)
    account.rounds = 1
    make_many(note, number, over=timedelta(hours=6))
    start = time.monotonic()
    house.beat()
    house.worker()
    eventually(all_ended, timeout=900)
    account.recoveries.append(time.monotonic() - start)
    check(account, mail, number)
    assert (account.lost, account.duplicated) == (0, 0)
    late = Delivery.objects.filter(is_late=True)
    assert number * 0.9 < late.count() < number
    assert all(delivery.lateness_seconds >= 16 * 60 for delivery in late)  # type: ignore[operator]
    assert max(delivery.lateness_seconds or 0 for delivery in late) > 5.9 * 3600
    assert sum("(late)" in message["Subject"] for message in mail.messages) == late.count()


# --- 4. Cost --------------------------------------------------------------------------------


@pytest.mark.long
def test_a_million_pending_reminders(note: Note):
    assert_the_sweep_reads_only_what_is_due(note, 1_000_000)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM reminders WHERE scheduled_at <= now()")
        assert cursor.fetchone() == (10,)
    assert sweep() == 10


# --- 5. Every zone --------------------------------------------------------------------------


@pytest.mark.long
def test_every_night_of_seven_years_in_every_zone():
    for zone in ZONES:
        check_nights(zone)
