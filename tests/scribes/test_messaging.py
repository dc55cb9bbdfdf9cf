"""scribes.messaging without a broker, failpoints, and text that PostgreSQL can store.

tests/jobs/test_publishing.py has the tests with a broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from celery import current_app
from django.conf import LazySettings
from django.db import connection, transaction

from scribes.embedded.addresses import redis_url
from scribes.messaging import broker
from scribes.messaging.failpoints import FailpointReached, failpoint
from scribes.messaging.publishing import publish, republish_after
from scribes.messaging.sanitize import strip_unstorable
from tests.helpers.processes import LONGEST_WAIT_SECONDS
from tests.helpers.servers import delete_queues

TASK = "scribes.tasks.heartbeat"


@pytest.fixture
def queues(servers: None) -> Iterator[None]:
    """Empty queues."""
    delete_queues()
    yield
    delete_queues()


@pytest.fixture
def use_broker(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """use_broker(url): this process uses the broker at that address for the rest of the test."""

    def forget_connections() -> None:
        broker.producers.cache_clear()
        broker.redis_client.cache_clear()

    def use(url: str) -> None:
        broker_url = url.replace("unix://", "redis+socket://")
        # Before the other setting changes: Celery reads that when its settings are first used.
        monkeypatch.setitem(current_app.conf, "broker_url", broker_url)
        settings.REDIS_URL = url
        forget_connections()

    yield use
    forget_connections()


# --- Publishing -----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_publish_sends_nothing_when_the_transaction_is_undone(queues: None):
    with transaction.atomic():
        publish(TASK, queue="control", label="Heartbeat: 1")
        transaction.set_rollback(True)
    assert broker.queue_length("control") == 0


def test_waiting_message_without_a_label_shows_the_task(queues: None):
    current_app.send_task(TASK, (5,), queue="control")
    assert broker.waiting_messages("control", 10) == [f"{TASK} (5,)"]


# --- Without a broker -----------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_publish_only_logs_that_the_broker_is_down(
    use_broker: Callable[[str], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    # Before a second attempt, kombu would pause for two seconds.
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: pytest.fail("it pauses"))
    use_broker(redis_url(tmp_path))
    with transaction.atomic():
        publish(TASK, 17, queue="control", label="Embed saved notes: note 17")
    (record,) = [r for r in caplog.records if r.name == "scribes.messaging.broker"]
    assert f"Could not publish {TASK}(17,)" in record.getMessage()
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_publish_gives_up_on_a_broker_that_hangs(
    use_broker: Callable[[str], None], silent_port: int, monkeypatch: pytest.MonkeyPatch
):
    """It takes 2.7 s at most. The limits of a worker's own connection are ten minutes here."""
    options = current_app.conf.broker_transport_options
    for limit in ("socket_timeout", "socket_connect_timeout"):
        monkeypatch.setitem(options, limit, LONGEST_WAIT_SECONDS)
    use_broker(f"redis://127.0.0.1:{silent_port}/0")
    start = time.monotonic()
    with transaction.atomic():
        publish(TASK, queue="control", label="Heartbeat: 1")
    assert time.monotonic() - start < LONGEST_WAIT_SECONDS / 10


def test_send_tells_whether_the_broker_took_the_message(
    queues: None, use_broker: Callable[[str], None], tmp_path: Path
):
    assert broker.send(TASK, (), "control", "Heartbeat: 1") is True
    use_broker(redis_url(tmp_path))
    assert broker.send(TASK, (), "control", "Heartbeat: 1") is False


def test_queues_cannot_be_read_without_a_broker(use_broker: Callable[[str], None], tmp_path: Path):
    use_broker(redis_url(tmp_path))
    for read in (broker.queue_length, republish_after):
        with pytest.raises(redis.RedisError):
            read("control")
    with pytest.raises(redis.RedisError):
        broker.waiting_messages("control", 10)


# --- Failpoints -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "other:raise", "before:raise", "before_commit_2:raise"])
def test_failpoint_does_nothing_unless_it_is_named(settings: LazySettings, value: str):
    settings.FAILPOINT = value
    failpoint("before_commit")


@pytest.mark.parametrize("value", ["before_commit:raise", "other:kill,before_commit:raise"])
def test_failpoint_raises(settings: LazySettings, value: str):
    settings.FAILPOINT = value
    with pytest.raises(FailpointReached, match="before_commit"):
        failpoint("before_commit")


def test_failpoint_with_a_file_happens_once(settings: LazySettings, tmp_path: Path):
    file = tmp_path / "once"
    file.touch()
    settings.FAILPOINT = f"before_commit:raise:{file}"
    with pytest.raises(FailpointReached):
        failpoint("before_commit")
    assert not file.exists()
    failpoint("before_commit")


# --- Text that PostgreSQL can store ---------------------------------------------------------

UNSTORABLE = [
    ("a\0b", "a\\0b"),
    ("\ud83d alone", "\\ud83d alone"),
    ("\udfff\0", "\\udfff\\0"),
    ("“🐑” שָׁלוֹם \x01\n", "“🐑” שָׁלוֹם \x01\n"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "stored"), UNSTORABLE)
def test_strip_unstorable_escapes_only_what_postgresql_rejects(text: str, stored: str):
    assert strip_unstorable(text) == stored


@pytest.mark.parametrize("text", [text for text, _ in UNSTORABLE])
def test_stripped_text_can_be_stored(db: None, text: str):
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::text", [strip_unstorable(text)])
        assert cursor.fetchone() == (strip_unstorable(text),)
