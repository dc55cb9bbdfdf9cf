"""`manage.py embedded COMMAND`: private servers for the length of a command."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from scribes import embedded
from tests.processes import MANAGE, eventually, left_over, own_environment

pytestmark = pytest.mark.usefixtures("servers")


WRITE = """
import os, psycopg, redis
psycopg.connect(os.environ["DATABASE_URL"]).execute("CREATE TABLE kept ()").connection.commit()
redis.Redis.from_url(os.environ["REDIS_URL"]).set("kept", 1)
"""
READ = """
import os, psycopg, redis
psycopg.connect(os.environ["DATABASE_URL"]).execute("SELECT * FROM kept")
print(redis.Redis.from_url(os.environ["REDIS_URL"]).get("kept"))
"""


def run(data: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MANAGE, "embedded", *command],
        env=own_environment(data, **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    assert left_over(tmp_path) == []


def test_what_was_written_is_there_the_next_time(data: Path):
    assert run(data, *python(WRITE)).returncode == 0
    assert left_over(data) == []
    second = run(data, *python(READ))
    assert (second.returncode, second.stdout) == (0, "b'1'\n"), second.stderr


def test_the_commands_exit_status_is_handed_on(data: Path):
    assert run(data, *python("raise SystemExit(7)")).returncode == 7


def test_only_the_owner_gets_at_the_sockets(data: Path):
    code = "import os, glob; print(oct(os.stat(os.environ['FOLDER']).st_mode))"
    result = run(data, *python(code), FOLDER=str(embedded.socket_dir(data)))
    assert stat.S_IMODE(int(result.stdout, 8)) == 0o700, result.stderr


def test_a_folder_of_any_name_will_do(tmp_path: Path):
    folder = tmp_path / "My Notes + ä & 50% #1"
    result = run(folder, *python(WRITE))
    assert result.returncode == 0, result.stderr
    result = run(folder, *MANAGE, "migrate", "--plan")
    assert "scribes.0001_initial" in result.stdout, result.stderr
    assert not embedded.socket_dir(folder).exists()


def test_a_deep_folder_gets_a_short_socket_path(tmp_path: Path):
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    folder = embedded.socket_dir(deep)
    assert len(str(folder / ".s.PGSQL.5432.lock")) < 100
    assert folder != embedded.socket_dir(deep / "other")
    result = run(deep, *python(WRITE))
    assert result.returncode == 0, result.stderr


def test_servers_that_are_named_are_used_and_none_is_started(data: Path):
    urls = {
        "DATABASE_URL": embedded.database_url(settings.DATA_DIR),
        "REDIS_URL": embedded.redis_url(settings.DATA_DIR),
    }
    code = "import os; print(os.environ['DATABASE_URL'], os.environ['REDIS_URL'])"
    result = run(data, *python(code), **urls)
    assert result.stdout.split() == list(urls.values())
    assert not (data / "postgres").exists()
    assert not (data / "valkey").exists()


def test_a_second_supervisor_is_refused(data: Path):
    second = f"import subprocess; subprocess.run({[*MANAGE, 'embedded', 'true']!r}, env={own_environment(data)!r})"
    result = run(data, *python(second))
    assert "already runs its servers" in result.stderr


def test_a_missing_command_is_an_error(data: Path):
    result = run(data, "no-such-command")
    assert result.returncode != 0
    assert "Say which command to run" in result.stderr


def start_sleeping(data: Path) -> subprocess.Popen[str]:
    """A supervisor whose command waits; returns once the command runs."""
    code = "import time; print('up', flush=True); time.sleep(600)"
    supervisor = subprocess.Popen(
        [*MANAGE, "embedded", *python(code)],
        env=own_environment(data),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert supervisor.stdout
    if supervisor.stdout.readline() != "up\n":
        supervisor.communicate()
        pytest.fail("the command did not start")
    return supervisor


@pytest.mark.parametrize("to_group", [True, False], ids=["ctrl-c", "sigterm"])
def test_an_interrupt_stops_everything(data: Path, to_group: bool):
    with start_sleeping(data) as supervisor:
        if to_group:
            os.killpg(supervisor.pid, signal.SIGINT)
        else:
            supervisor.terminate()
        assert supervisor.wait(60) != 0
    assert left_over(data) == []


def test_servers_of_a_killed_supervisor_are_taken_over(data: Path):
    with start_sleeping(data) as supervisor:
        os.killpg(supervisor.pid, signal.SIGKILL)
    assert left_over(data)
    assert run(data, *python(WRITE)).returncode == 0
    eventually(lambda: left_over(data) == [])
