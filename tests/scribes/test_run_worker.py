"""`manage.py run_worker`: what it does before the worker starts, and on Windows."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from scribes.embedded.ports import free_port
from scribes.models import Heartbeat
from tests.helpers.processes import environment, eventually, manage, running

pytestmark = pytest.mark.django_db


def test_run_worker_prints_problems_instead_of_starting():
    port = free_port()
    result = manage(
        "run_worker",
        DATABASE_URL="postgresql://scribes:s3cret@nowhere.invalid/scribes",
        REDIS_URL=f"redis://127.0.0.1:{port}/0",
        EMAIL_URL=f"smtp://127.0.0.1:{port}",
    )
    assert result.returncode == 1
    assert "is on a host whose name cannot be resolved" in result.stderr
    for text in ("✘ PostgreSQL", "✘ Redis", "✘ mail server", "where: ", "fix: "):
        assert text in result.stderr
    assert "The worker was not started." in result.stderr
    assert "s3cret" not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    assert "beat" not in result.stderr


ON_WINDOWS = """
import django, sys
django.setup()
from scribes.management.commands.run_worker import start_worker
sys.platform = "win32"
start_worker(["-n", "windows@%h"])
"""


@pytest.mark.django_db(transaction=True)
def test_run_worker_has_the_worker_as_its_child_on_windows(tmp_path: Path):
    """As far as another system can tell: the pool `solo` works, and Ctrl-C ends both processes."""
    command = [sys.executable, "-c", ON_WINDOWS]
    with running(command, tmp_path / "worker.log", environment()) as parent:
        parent.await_output("is ready")
        eventually(lambda: Heartbeat.objects.filter(name="queue embeddings").exists())
        (worker,) = psutil.Process(parent.popen.pid).children(recursive=True)
        assert "windows@%h" in worker.cmdline()
        os.killpg(parent.popen.pid, signal.SIGINT)  # as Ctrl-C does
        parent.await_end()
        assert not worker.is_running()
    assert '"pool": "solo"' in parent.output
    assert "Warm shutdown" in parent.output
    assert "Traceback" not in parent.output
