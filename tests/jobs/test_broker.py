"""Redis goes away at the wrong moment."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from celery import current_app
from django.core.management import call_command

from jobs import broker
from jobs.tasks import reconcile
from scribes import embedded
from tests.conftest import forget_queues


@pytest.mark.usefixtures("servers")
def test_a_message_of_a_closed_connection_counts_as_a_lost_connection():
    """A worker takes up its work again after a lost connection, but ends at any other error."""
    connection = current_app.connection_for_read()
    channel = connection.default_channel
    lost = connection.connection_errors
    connection.close()
    with pytest.raises(lost):
        channel.basic_ack("a message that came over it")  # type: ignore[attr-defined]


def test_a_refused_connection_is_not_waited_for(tmp_path: Path, monkeypatch):
    """Nobody waits for a broker that is down: a second attempt costs kombu's pause of two seconds."""
    url = embedded.redis_url(tmp_path)
    monkeypatch.setitem(current_app.conf, "broker_url", url.replace("unix://", "redis+socket://"))
    broker._producers.cache_clear()
    start = time.monotonic()
    try:
        assert not broker.send(reconcile, (), "default", says="reconcile")
    finally:
        broker._producers.cache_clear()
    assert time.monotonic() - start < 1.5


@pytest.mark.usefixtures("servers")
def test_the_queues_and_what_waits_in_them(capsys: pytest.CaptureFixture[str]):
    forget_queues()
    for note_id in (5, 6, 5):
        current_app.send_task("notes.tasks.embed_note", (note_id,))
    call_command("queues")
    assert capsys.readouterr().out.splitlines() == [
        "default: 3 messages wait",
        "      2 notes.tasks.embed_note (5,)",
        "      1 notes.tasks.embed_note (6,)",
        "embeddings: 0 messages wait",
        "reminders: 0 messages wait",
    ]
    forget_queues()
