"""Messages that a worker cannot read: it logs, counts and drops them, and goes on."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.core.management import call_command

from scribes.messaging import unreadable
from scribes.monitoring.metrics import unreadable_messages
from scribes.monitoring.probes.redis import messages_are_readable
from scribes.monitoring.probes.registry import ProbeFailed
from tests.helpers.processes import Process, eventually
from tests.helpers.servers import delete_queues, worker_process

pytestmark = pytest.mark.django_db(transaction=True)

ID = "2b6f0cc9-04d1-4b7c-a1b7-2a2f7d3e1c55"
HEARTBEAT = "scribes.tasks.heartbeat"


def encoded(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def message(*, body: Any = None, headers: Any = None, properties: Any = None, **fields: Any) -> str:
    """A message of the kind that workers read, except for the parts that are named."""
    full_headers = {"task": HEARTBEAT, "id": ID, "lang": "py", "root_id": ID, "retries": 0}
    full_properties = {
        "delivery_tag": ID,
        "delivery_info": {"exchange": "control", "routing_key": "control"},
        "body_encoding": "base64",
        "priority": 0,
    }
    return json.dumps(
        {
            "body": encoded([[], {}, {}]) if body is None else body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": full_headers if headers is None else full_headers | headers,
            "properties": full_properties if properties is None else full_properties | properties,
            **fields,
        }
    )


BAD_MESSAGES: dict[str, str | bytes] = {
    "not JSON": "garbage{",
    "not UTF-8": b"\xff\xfe\x00",
    "empty": "",
    "too deep": "[" * 100_000,
    "too long a number": "1" * 5000,
    "a number": "5",
    "a list": "[]",
    "null": "null",
    "an empty object": "{}",
    "an unknown type": '{"__type__": "x", "__value__": 1}',
    "a type without a value": '{"__type__": "datetime", "__value__": "x"}',
    "properties that are a list": message().replace('"properties": {', '"properties": [], "x": {'),
    "no delivery tag": message(properties={"delivery_tag": None}),
    "a delivery tag that is an object": message(properties={"delivery_tag": {}}),
    "delivery information that is a list": message(properties={"delivery_info": []}),
    "a routing key that is an object": message(
        properties={"delivery_info": {"exchange": {}, "routing_key": {}}}
    ),
    "an unknown body encoding": message(properties={"body_encoding": "rot13"}),
    "a body that is not base64": message(body="*"),
    "a body that is an object": message(body={"a": 1}),
    "a body that is not JSON": message(body=base64.b64encode(b"x{").decode()),
    "a body that is null": message(body=encoded(None)),
    "a body that is a number": message(body=encoded(5)),
    "a body with two parts": message(body=encoded([[], {}])),
    "a body whose parts are numbers": message(body=encoded([1, 2, 3])),
    "a body whose options are text": message(body=encoded([[], {}, "x"])),
    "pickle": message(**{"content-type": "application/x-python-serialize"}),
    "an unknown content type": message(**{"content-type": "application/x-scribes"}),
    "a content type that is a list": message(**{"content-type": []}),
    "unknown compression": message(headers={"compression": "x"}),
    "headers that are text": message().replace('"headers": {', '"headers": "x", "y": {'),
    "an unknown task": message(headers={"task": "scribes.tasks.unknown"}),
    "a task that is a list": message(headers={"task": []}),
    "an unknown task without an id": message(headers={"task": "unknown", "id": None}),
    "an id that is an object": message(headers={"id": {}}),
    "an expiry that is no time": message(headers={"expires": "soon"}),
    "an expiry that is an object": message(headers={"expires": {}}),
    "an expiry that is a number": message(headers={"expires": 5}),
    "a start that is no time": message(headers={"eta": "soon"}),
    "time limits that are text": message(headers={"timelimit": "x"}),
    "a label that is a list": message(headers={"shadow": ["x"]}),
    "stamps": message(headers={"stamped_headers": 5}),
}


@pytest.fixture
def client(servers: None) -> Iterator[redis.Redis]:
    """Redis with empty queues."""
    delete_queues()
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client
    delete_queues()


def key(name: str) -> str:
    return f"{settings.REDIS_KEY_PREFIX}{name}"


def send(client: redis.Redis, text: str | bytes) -> None:
    client.lpush(key("control"), text)


def await_idle(worker: Process, client: redis.Redis) -> None:
    """Wait until the worker has taken and acknowledged all messages."""

    def is_idle() -> bool:
        assert worker.popen.poll() is None, worker.output
        return not client.llen(key("control")) and not client.hlen(key("unacked"))

    eventually(is_idle)


def dropped_lines(worker: Process) -> list[str]:
    return [line for line in worker.output.splitlines() if "Dropped a message" in line]


def test_worker_drops_messages_that_it_cannot_read(tmp_path: Path, client: redis.Redis):
    """Each is logged in one short line, and the message after it is read."""
    with worker_process(tmp_path, "worker") as worker:
        for number, (name, text) in enumerate(BAD_MESSAGES.items(), start=1):
            send(client, text)
            send(client, message())
            await_idle(worker, client)
            lines = dropped_lines(worker)
            assert len(lines) == number, f"{name}: {lines[-2:]}"
            assert len(lines[-1]) < 1000
        assert "Traceback" not in worker.output
    assert unreadable.count() == len(BAD_MESSAGES)
    reasons = [dropped.reason for dropped in reversed(unreadable.latest())]
    assert reasons[0] == "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"


@pytest.mark.parametrize("body", [[[1, 2], {}, {}], [[], {"no": 1}, {}]], ids=["args", "kwargs"])
def test_task_fails_when_its_arguments_are_wrong(
    body: list[Any], tmp_path: Path, client: redis.Redis
):
    with worker_process(tmp_path, "worker") as worker:
        send(client, message(body=encoded(body)))
        send(client, message())
        await_idle(worker, client)
        assert worker.output.count("raised unexpected: TypeError") == 1


@pytest.mark.parametrize("channel", ["/0.celery.pidbox", "/0.celeryev/worker.heartbeat"])
def test_worker_drops_broadcast_messages_that_it_cannot_read(
    channel: str, tmp_path: Path, client: redis.Redis
):
    with worker_process(tmp_path, "worker") as worker:
        for text in ("garbage{", "5", "{}", message(body=5), message(body=encoded([]))):
            # It subscribes after it is ready.
            eventually(partial(client.publish, key(channel), text))
        eventually(lambda: len(dropped_lines(worker)) >= 3)
        send(client, message())
        await_idle(worker, client)


def test_unreadable_messages_are_kept_up_to_a_limit(client: redis.Redis):
    for number in range(unreadable.KEPT_MESSAGES + 3):
        unreadable.drop("notes", ValueError(number), "x" * 5000)
    latest = unreadable.latest()
    assert len(latest) == unreadable.KEPT_MESSAGES
    assert unreadable.count() == unreadable.KEPT_MESSAGES + 3
    assert latest[0].reason == f"ValueError: {unreadable.KEPT_MESSAGES + 2}"
    assert len(latest[0].message) == unreadable.KEPT_CHARACTERS


def test_unreadable_message_is_logged_without_redis(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
):
    client.set(key("unreadable"), "not a list")
    unreadable.drop("notes", ValueError("no"), b"\xff")
    assert "Dropped a message of the queue notes" in caplog.text


def test_queues_command_shows_messages_that_cannot_be_read(
    client: redis.Redis, capsys: pytest.CaptureFixture[str]
):
    send(client, "garbage{")
    unreadable.drop("notes", ValueError("it is bad"), "alice@example.com")
    call_command("queues")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["control: 1 message waiting", "      1 a message that cannot be read"]
    assert lines[-2] == "dropped, since they cannot be read: 1 message"
    assert lines[-1].endswith(" notes: ValueError: it is bad: ***@***")


def test_doctor_reports_messages_that_cannot_be_read(client: redis.Redis):
    assert messages_are_readable() == "none was dropped in the last hour, 0 before"
    unreadable.drop("notes", ValueError("it is bad"), "{}")
    with pytest.raises(ProbeFailed, match="Workers dropped 1 messages") as failed:
        messages_are_readable()
    assert failed.value.location == "the queue notes"


def test_metrics_count_messages_that_cannot_be_read(client: redis.Redis):
    unreadable.drop("notes", ValueError("it is bad"), "{}")
    (metric,) = unreadable_messages()
    assert [sample.value for sample in metric.samples] == [1]


def test_doctor_counts_old_unreadable_messages_as_no_problem(client: redis.Redis):
    old = unreadable.Dropped("2026-01-01T00:00:00+00:00", "notes", "ValueError", "{}")
    client.lpush(key("unreadable"), json.dumps(old))
    client.set(key("unreadable-count"), 1)
    assert messages_are_readable() == "none was dropped in the last hour, 1 before"
