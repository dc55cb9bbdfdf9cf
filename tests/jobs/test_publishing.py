"""Messages: what is sent, when, under which name, and what happens without a broker."""

from __future__ import annotations

import ast
import logging
import re
from functools import cache

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import transaction

from celery_app import QUEUES, app
from jobs.models import BackgroundJob
from jobs.runner import enqueue
from scribes.messaging import broker
from scribes.messaging.publishing import BUSY_QUEUE_REPUBLISH_FACTOR, publish, republish_after
from scribes.models import User
from tests.helpers.jobs import run_job, start_counting

TASK_NAME = re.compile(r"(scribes|jobs|notes|reminders)\.tasks\.\w+")


# --- Names ----------------------------------------------------------------------------------


@cache
def syntax_tree_nodes() -> list[ast.AST]:
    """Of all modules that a worker or a web process may run."""
    files = [settings.BASE_DIR / "celery_app.py"]
    for package in ("scribes", "jobs", "notes", "reminders"):
        files.extend((settings.BASE_DIR / package).rglob("*.py"))
    return [node for file in files for node in ast.walk(ast.parse(file.read_text()))]


def publish_calls() -> list[ast.Call]:
    calls = [node for node in syntax_tree_nodes() if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "publish"]


def constant(node: ast.expr) -> str:
    assert isinstance(node, ast.Constant), f"line {node.lineno}: not a string: {ast.dump(node)}"
    return str(node.value)


def test_published_and_scheduled_task_names_are_registered():
    """Such a name is a string, and a wrong one would only be noticed by a worker."""
    published = {constant(call.args[0]) for call in publish_calls()}
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    strings = [node.value for node in syntax_tree_nodes() if isinstance(node, ast.Constant)]
    # Also those that are sent when a worker starts.
    named = {name for name in strings if isinstance(name, str) and TASK_NAME.fullmatch(name)}
    assert {"jobs.tasks.plan_job", "jobs.tasks.run_batch"} <= published
    assert {"jobs.tasks.reconcile", "scribes.tasks.heartbeat"} <= scheduled & named
    app.loader.import_default_modules()
    assert published | scheduled | named <= app.tasks.keys()


def test_published_queues_are_consumed():
    """The queue is a string or a job type's; tests/jobs/test_job_types.py checks those."""
    keywords = [keyword for call in publish_calls() for keyword in call.keywords]
    queues = [keyword.value for keyword in keywords if keyword.arg == "queue"]
    assert len(queues) == len(publish_calls())
    assert {q.value for q in queues if isinstance(q, ast.Constant)} <= set(QUEUES)
    scheduled = [entry.get("options", {}).get("queue") for entry in app.conf.beat_schedule.values()]
    assert {queue for queue in scheduled if queue} == set(QUEUES)


# --- Sending --------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("empty_queues")
def test_publish_sends_when_the_transaction_commits():
    with transaction.atomic():
        publish("jobs.tasks.reconcile", queue="notes", label="Reconcile: now")
        assert broker.queue_length("notes") == 0
    assert broker.waiting_messages("notes", 9) == ["Reconcile: now"]
    with transaction.atomic():
        publish("jobs.tasks.reconcile", queue="notes", label="Reconcile: never")
        transaction.set_rollback(True)
    assert broker.queue_length("notes") == 1


@pytest.mark.usefixtures("empty_queues")
def test_jobs_messages_name_the_job_and_the_batch(alice: User, settings, run_on_commit):
    settings.JOB_BATCH_SIZE = 5
    settings.JOB_PARALLELISM = 1
    with run_on_commit():
        job, _ = enqueue(alice, "counting", {"count": 15})
    with run_on_commit():
        run_job(job, batches=1)
    short_id = str(job.pk)[:8]
    assert broker.waiting_messages("control", 9) == [
        f"Counting: job {short_id} plan",
        f"Counting: job {short_id} batch 1/3",
        f"Counting: job {short_id} batch 2/3",
    ]


def test_messages_go_to_the_queue_of_the_job_type(
    alice: User, empty_queues: None, monkeypatch, run_on_commit
):
    """The message to plan the job goes to the control queue."""
    monkeypatch.setattr("tests.helpers.counting.Counting.queue", "embeddings")
    with run_on_commit():
        start_counting(alice, 5)
    assert (broker.queue_length("control"), broker.queue_length("embeddings")) == (1, 1)


def test_waiting_messages_are_the_oldest_ones(empty_queues: None):
    for number in range(5):
        broker.send("jobs.tasks.reconcile", (), "control", f"Reconcile: {number}")
    assert broker.waiting_messages("control", 2) == ["Reconcile: 0", "Reconcile: 1"]
    assert broker.waiting_messages("control", 0) == []
    assert broker.queue_length("control") == 5


# --- Lost messages --------------------------------------------------------------------------


@pytest.mark.usefixtures("empty_queues")
def test_republish_after_is_longer_while_the_queue_is_busy():
    broker.send("jobs.tasks.reconcile", (), "control", "Reconcile: now")
    seconds = settings.JOB_REPUBLISH_SECONDS
    assert BUSY_QUEUE_REPUBLISH_FACTOR > 1
    assert republish_after("control") == seconds * BUSY_QUEUE_REPUBLISH_FACTOR
    assert republish_after("notes") == seconds


@pytest.mark.usefixtures("refused_redis")
def test_republish_after_raises_without_redis():
    with pytest.raises(redis.RedisError):
        republish_after("control")


# --- Without a broker -----------------------------------------------------------------------


@pytest.mark.usefixtures("servers")
def test_message_of_a_closed_connection_is_a_lost_connection():
    """A worker goes on after a lost connection, but ends at any other error."""
    connection = current_app.connection_for_read()
    channel = connection.default_channel
    lost = connection.connection_errors
    connection.close()
    with pytest.raises(lost):
        channel.basic_ack("a message that came over it")  # type: ignore[attr-defined]


@pytest.mark.usefixtures("refused_redis")
def test_send_does_not_wait_for_a_broker_that_refuses(monkeypatch: pytest.MonkeyPatch):
    """Before a second attempt, kombu would pause for two seconds."""
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: pytest.fail("it pauses"))
    assert not broker.send("jobs.tasks.reconcile", (), "control", label="Reconcile: now")


@pytest.mark.usefixtures("refused_redis")
def test_enqueue_keeps_the_job_when_the_broker_refuses(
    alice: User, run_on_commit, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "scribes.messaging"), run_on_commit():
        job, is_new = enqueue(alice, "counting", {"count": 1})
    assert is_new
    assert BackgroundJob.objects.get() == job
    assert "Could not publish jobs.tasks.plan_job" in caplog.text


# --- manage.py queues -----------------------------------------------------------------------


@pytest.mark.usefixtures("empty_queues")
def test_queues_command_lists_waiting_messages(capsys: pytest.CaptureFixture[str]):
    for note_id in (5, 6, 5):
        label = f"Embed saved notes: note {note_id}"
        broker.send("notes.tasks.embed_saved_notes", (), "notes", label)
    current_app.send_task("jobs.tasks.reconcile")
    call_command("queues")
    assert capsys.readouterr().out.splitlines() == [
        "control: 1 message waiting",
        "      1 jobs.tasks.reconcile ()",
        "notes: 3 messages waiting",
        "      2 Embed saved notes: note 5",
        "      1 Embed saved notes: note 6",
        "embeddings: 0 messages waiting",
        "reminders: 0 messages waiting",
    ]


@pytest.mark.usefixtures("refused_redis")
def test_queues_command_says_what_to_do_without_redis():
    with pytest.raises(CommandError, match=r"Redis does not answer. Run manage.py doctor."):
        call_command("queues")
