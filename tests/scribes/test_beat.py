"""Beat, as systemd and Docker stop it."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection, transaction
from django_celery_beat.models import PeriodicTask

from scribes.models import Heartbeat
from scribes.monitoring.heartbeats import BEAT
from tests.helpers.database import is_lock_awaited
from tests.helpers.processes import environment, eventually, running


@pytest.mark.django_db(transaction=True)
def test_beat_ends_when_it_is_stopped_during_a_query(tmp_path: Path):
    """The query is completed, and beat writes its schedule as it ends."""
    command = ["celery", "-A", "scribes", "beat"]
    env = environment(HEARTBEAT_SECONDS="1")
    with running(command, tmp_path / "beat.log", env) as beat:
        eventually(lambda: Heartbeat.objects.filter(name=BEAT).exists(), process=beat)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE heartbeats")
            eventually(is_lock_awaited, process=beat)
            beat.popen.terminate()
        assert beat.await_end() == 0, beat.output
    assert PeriodicTask.objects.exclude(last_run_at=None).exists()
    assert "Traceback" not in beat.output
