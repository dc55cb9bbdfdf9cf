"""scribes.monitoring.heartbeats: what is written and when."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scribes.models import Heartbeat
from scribes.monitoring import heartbeats

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has not recorded a heartbeat yet."""
    monkeypatch.setattr(heartbeats, "_recorded_at", {})


def test_record_writes_one_row_for_each_name_and_process():
    heartbeats.record("beat")
    heartbeats.record("sweep")
    heartbeats._recorded_at.clear()
    heartbeats.record("beat")
    assert sorted(Heartbeat.objects.values_list("name", flat=True)) == ["beat", "sweep"]
    assert 0 <= heartbeats.ages()["beat"] < 10


def test_record_does_not_write_each_time():
    heartbeats.record("beat")
    with CaptureQueriesContext(connection) as queries:
        heartbeats.record("beat")
    assert len(queries) == 0


def test_record_never_raises(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def fail(name: str) -> None:
        raise DatabaseError("the server is gone")

    monkeypatch.setattr(heartbeats, "_write", fail)
    # Closing the connection would undo the test's transaction.
    monkeypatch.setattr(connection, "close", lambda: None)
    heartbeats.record("beat")
    assert "The heartbeat of beat was not written" in caplog.text
    assert heartbeats._recorded_at == {}


def test_ages_are_those_of_the_latest_process():
    now = timezone.now()
    for process, minutes in (("a:1", 5), ("a:2", 2), ("b:1", 9)):
        at = now - timedelta(minutes=minutes)
        Heartbeat.objects.create(name="beat", process=process, at=at)
    assert 120 <= heartbeats.ages()["beat"] < 130


def test_prune_deletes_heartbeats_after_a_day():
    now = timezone.now()
    for hours in (1, 23, 25):
        at = now - timedelta(hours=hours)
        Heartbeat.objects.create(name="beat", process=f"a:{hours}", at=at)
    heartbeats.prune()
    assert sorted(Heartbeat.objects.values_list("process", flat=True)) == ["a:1", "a:23"]


@pytest.mark.parametrize(("queue", "names"), [("notes", {"queue notes"}), ("other", set())])
def test_consumption_is_recorded_for_queues_of_scribes(
    settings: LazySettings, queue: str, names: set[str]
):
    class Request:
        delivery_info = {"routing_key": queue}

    class Task:
        request = Request

    heartbeats.record_consumption(task=Task)
    assert set(heartbeats.ages()) == names
