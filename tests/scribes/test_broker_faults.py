"""Workers survive messages that they cannot read. tests/chaos has a Redis that refuses commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings
from django.core.management import call_command

from celery_app import QUEUES
from scribes.messaging import broker
from scribes.messaging.unreadable import unreadable_messages
from scribes.models import User
from tests.helpers.counting import create_table
from tests.helpers.jobs import start_counting
from tests.helpers.processes import LONGEST_WAIT_SECONDS, eventually
from tests.helpers.servers import delete_queues, worker_process

pytestmark = pytest.mark.django_db(transaction=True)

HEADERS = {"lang": "py", "task": "scribes.tasks.heartbeat", "id": "1", "argsrepr": "()"}
ENVELOPE: dict[str, Any] = {
    "body": "W1tdLCB7fSwge31d",
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": HEADERS,
    "properties": {
        "correlation_id": "1",
        "delivery_info": {"exchange": "", "routing_key": "control"},
        "delivery_tag": "1",
        "body_encoding": "base64",
    },
}
UNREADABLE: list[str | bytes] = [
    "garbage{",
    b"\xff\xfe\x00",
    "",
    "5",
    "[]",
    "{}",
    json.dumps(ENVELOPE | {"properties": {}}),
    json.dumps(ENVELOPE | {"body": "not base64!"}),
]
# Messages that Celery itself logs and drops.
USELESS: list[str | bytes] = [
    json.dumps(ENVELOPE | {"content-type": "application/x-python-serialize"}),
    json.dumps(ENVELOPE | {"headers": HEADERS | {"task": "no.such.task"}}),
    json.dumps(ENVELOPE | {"headers": {}}),
    json.dumps(ENVELOPE | {"body": "W1sxLCAyXSwge30sIHt9XQ=="}),
]


def push(queue: str, message: str | bytes) -> None:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.lpush(f"{settings.REDIS_KEY_PREFIX}{queue}", message)


@pytest.fixture
def counting_user(transactional_db: None) -> User:
    delete_queues()
    create_table()
    return User.objects.create_user("alice@example.com")


def test_worker_survives_messages_that_it_cannot_read(counting_user: User, tmp_path: Path):
    for queue in QUEUES:
        for message in (*UNREADABLE, *USELESS):
            push(queue, message)
    with worker_process(tmp_path, "first", "--include", "tests.helpers.counting") as worker:
        job = start_counting(counting_user, 10)
        eventually(lambda: not job.batches.exclude(status="done"), process=worker)
        eventually(lambda: not any(map(broker.queue_length, QUEUES)), process=worker)
        assert worker.popen.poll() is None
    assert sum(unreadable_messages().values()) == len(QUEUES) * len(UNREADABLE)
    assert "Dropped a message that cannot be read" in worker.output


def test_queues_command_lists_unreadable_messages(
    counting_user: User, capsys: pytest.CaptureFixture[str]
):
    for message in UNREADABLE[:6]:
        push("notes", message)
    call_command("queues")
    assert "      6 an unreadable message" in capsys.readouterr().out.splitlines()


def test_control_comes_first_and_the_others_take_turns(counting_user: User):
    """The order in which a worker's connection takes messages from full queues."""
    others = [queue for queue in QUEUES if queue != "control"]
    for queue in (*others * 30, "control"):
        broker.send("scribes.tasks.heartbeat", (), queue, "Heartbeat: test")
    taken: list[str] = []
    with current_app.connection_for_read() as connection:
        queues = [current_app.amqp.queues[queue] for queue in QUEUES]
        consumer = connection.Consumer(queues, accept=["json"], no_ack=True, prefetch_count=1)
        consumer.register_callback(lambda _, message: taken.append(routing_key(message)))
        with consumer:
            for _ in range(30):
                connection.drain_events(timeout=LONGEST_WAIT_SECONDS)
            broker.send("scribes.tasks.heartbeat", (), "control", "Heartbeat: test")
            for _ in range(2):
                connection.drain_events(timeout=LONGEST_WAIT_SECONDS)
    assert taken[0] == "control"
    assert "control" in taken[-2:]
    assert {taken[1:30].count(queue) for queue in others} <= {9, 10}


def routing_key(message: Any) -> str:
    return str(message.delivery_info["routing_key"])
