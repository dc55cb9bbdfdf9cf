"""Reminders while processes are killed and servers fail, counted at a real mail server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from notes.models import Note
from reminders import retrying, sending
from reminders import sweep as sweep_module
from reminders.dispatch import publish_deliveries
from reminders.models import LATE_AFTER, Delivery, Reminder
from scribes.messaging import broker as messaging_broker
from scribes.models import User
from tests.chaos.broker import Broker
from tests.chaos.deployment import Deployment, crash_postgresql
from tests.chaos.fault_report import FaultReport
from tests.helpers.factories import make_reminders
from tests.helpers.mail import MailServer
from tests.helpers.processes import eventually, run_concurrently
from tests.helpers.recurrence import ZONES, check_nights
from tests.helpers.reminders import sweep
from tests.helpers.sweep_plan import assert_the_sweep_reads_only_what_is_due

Rounds = Callable[[int, int], int]

FAILPOINTS = (
    *sweep_module.FAILPOINTS,
    *messaging_broker.FAILPOINTS,
    *sending.FAILPOINTS,
    *retrying.FAILPOINTS,
)
# Sweeps come this often instead of every quarter of an hour.
SWEEP_INTERVAL_SECONDS = 0.3


@pytest.fixture
def mail() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.stop()


@pytest.fixture
def deployment(deployment: Deployment, publishing: None, mail: MailServer) -> Deployment:
    """Its workers send to the test's mail server, and this process publishes to its broker."""
    deployment.env |= {"EMAIL_URL": mail.url, "REMINDER_RETRY_SECONDS": "1"}
    return deployment


@pytest.fixture
def note(transactional_db: None) -> Note:
    return Note.objects.create(user=User.objects.create_user("alice@example.com"), title="Rest")


def all_have_ended() -> bool:
    return not Reminder.objects.filter(status__in=Reminder.ACTIVE).exists()


def await_all_sent(fault_report: FaultReport) -> None:
    start = time.monotonic()
    eventually(all_have_ended, Reminder.objects.filter(status="sent").count)
    fault_report.recoveries.append(time.monotonic() - start)


def count_mails(fault_report: FaultReport, mail: MailServer, expected: int) -> None:
    """Count the mails that never arrived at the mail server, and the mails that arrived twice."""
    assert Reminder.objects.filter(status="sent").count() == expected
    sent = {f"<{pk}@localhost>" for pk in Delivery.objects.values_list("pk", flat=True)}
    copies = mail.copies()
    fault_report.lost = len(sent - copies.keys()) + expected - len(sent)
    fault_report.duplicated = copies.total() - len(copies)
    assert copies.keys() <= sent


# --- 1. Once --------------------------------------------------------------------------------


def test_reminders_are_sent_once_when_eight_sweeps_run(
    deployment: Deployment,
    broker: Broker,
    mail: MailServer,
    note: Note,
    rounds: Rounds,
    fault_report: FaultReport,
):
    """There are also two beats, and each message is sent three times."""
    number = rounds(100, 10_000)
    fault_report.rounds, fault_report.faults = 1, 8
    for _ in range(2):
        deployment.beat()
    deployment.ready_worker()
    make_reminders(note, number)
    found = run_concurrently(8, lambda n: sweep())
    ids = list(Delivery.objects.values_list("pk", flat=True))
    publish_deliveries(ids)
    publish_deliveries(reversed(ids))
    await_all_sent(fault_report)
    eventually(lambda: not broker.has_messages("reminders"))
    count_mails(fault_report, mail, number)
    assert sum(found) <= number
    assert (fault_report.lost, fault_report.duplicated) == (0, 0)
    assert Delivery.objects.exclude(attempts=1).count() == 0


# --- 2. Nothing is lost ---------------------------------------------------------------------


def test_reminders_are_all_sent_when_processes_are_killed(
    deployment: Deployment,
    mail: MailServer,
    note: Note,
    rounds: Rounds,
    fault_report: FaultReport,
    tmp_path: Path,
):
    """A process is killed at each failpoint in turn."""
    flags = {name: tmp_path / name for name in FAILPOINTS}
    failpoints = ",".join(f"{name}:kill:{flag}" for name, flag in flags.items())
    deployment.beat()
    deployment.ready_worker(FAILPOINT=failpoints, REMINDER_LEASE_SECONDS="2")
    duplicated: Counter[str] = Counter()
    kills = rounds(1, 10)
    for number, (name, flag) in enumerate(list(flags.items()) * kills, 1):
        mail.messages.clear()
        Delivery.objects.all().delete()
        Reminder.objects.all().delete()
        flag.touch()
        make_reminders(note, 10)
        start = time.monotonic()
        eventually(partial(sweep_until_killed_and_sent, flag))
        fault_report.recoveries.append(time.monotonic() - start)
        count_mails(fault_report, mail, 10)
        assert fault_report.lost == 0, name
        duplicated[name] += fault_report.duplicated
        fault_report.rounds = fault_report.faults = number
    fault_report.duplicated = duplicated.total()
    assert +duplicated == Counter(after_send=kills)


def sweep_until_killed_and_sent(flag: Path) -> bool:
    """Ask for a sweep as beat does; whether the kill has happened and all reminders have ended."""
    messaging_broker.send("reminders.tasks.sweep", (), "control", "Sweep")
    lose_messages()
    time.sleep(SWEEP_INTERVAL_SECONDS)
    return not flag.exists() and all_have_ended()


def lose_messages() -> None:
    """As soon as a reminder has been sent, so that the retry always has something to publish."""
    if Delivery.objects.filter(status="sent").exists():
        Delivery.objects.pending().update(dispatched_at=None)


def test_reminders_are_all_sent_when_every_server_fails(
    deployment: Deployment,
    broker: Broker,
    mail: MailServer,
    note: Note,
    rounds: Rounds,
    fault_report: FaultReport,
):
    """The servers fail one after the other while reminders are due. The delay after a failed attempt
    is cut short."""
    number = rounds(20, 2000)
    deployment.beat()
    deployment.ready_worker(REMINDER_LEASE_SECONDS="2")
    fault_report.rounds, fault_report.faults = 1, 3
    mail.stop()
    make_reminders(note, number)
    sweep()
    eventually(Delivery.objects.filter(attempts__gt=0).exists)
    mail.start()
    broker.client.flushall()
    crash_postgresql()
    Delivery.objects.pending().update(next_attempt_at=timezone.now())
    await_all_sent(fault_report)
    count_mails(fault_report, mail, number)
    assert fault_report.lost == 0
    # The crash may fall between the mail server's answer and our commit, in each of two processes.
    assert fault_report.duplicated <= 2


# --- 3. After an outage ---------------------------------------------------------------------


def test_reminders_are_sent_once_after_six_hours_of_outage(
    deployment: Deployment,
    mail: MailServer,
    note: Note,
    rounds: Rounds,
    fault_report: FaultReport,
):
    """Starting a worker is enough."""
    number = rounds(100, 10_000)
    fault_report.rounds = 1
    make_reminders(note, number, over=timedelta(hours=6))
    deployment.beat()
    deployment.worker()
    await_all_sent(fault_report)
    count_mails(fault_report, mail, number)
    assert (fault_report.lost, fault_report.duplicated) == (0, 0)
    late = Delivery.objects.filter(is_late=True)
    assert number * 0.9 < late.count() < number
    seconds = [delivery.lateness_seconds or 0 for delivery in late]
    assert min(seconds) >= LATE_AFTER.total_seconds()
    assert max(seconds) > 5.9 * 3600
    assert sum("(late)" in message["Subject"] for message in mail.messages) == late.count()


# --- 4. Cost --------------------------------------------------------------------------------


@pytest.mark.long
def test_sweep_reads_only_due_rows_when_a_million_are_pending(note: Note):
    assert_the_sweep_reads_only_what_is_due(note, 1_000_000)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM reminders WHERE scheduled_at <= now()")
        assert cursor.fetchone() == (10,)
    assert sweep() == 10


# --- 5. Time zones --------------------------------------------------------------------------


@pytest.mark.long
def test_occurrences_are_right_every_night_in_every_zone():
    for zone in ZONES:
        check_nights(zone)
