"""`manage.py embedded COMMAND`: servers of a checkout's own while a command runs."""

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

from scribes.embedded import supervisor
from scribes.embedded.addresses import database_url, redis_url, socket_dir
from scribes.embedded.server_process import ServerFailed
from tests.helpers.processes import (
    LONGEST_WAIT_SECONDS,
    MANAGE,
    eventually,
    left_over,
    own_environment,
)

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


CONNECT = """
import os, psycopg, redis
psycopg.connect(os.environ["DATABASE_URL"])
redis.Redis.from_url(os.environ["REDIS_URL"]).ping()
"""


def run(data: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MANAGE, "embedded", *command],
        env=own_environment(data, **variables),
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_SECONDS,
    )


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    assert left_over(tmp_path) == []


def test_embedded_servers_keep_their_data(data: Path):
    assert run(data, *python(WRITE)).returncode == 0
    assert left_over(data) == []
    second = run(data, *python(READ))
    assert (second.returncode, second.stdout) == (0, "b'1'\n"), second.stderr


def test_embedded_exits_with_the_status_of_the_command(data: Path):
    assert run(data, *python("raise SystemExit(7)")).returncode == 7


def test_socket_folder_is_private(data: Path):
    code = "import os, glob; print(oct(os.stat(os.environ['FOLDER']).st_mode))"
    result = run(data, *python(code), FOLDER=str(socket_dir(data)))
    assert stat.S_IMODE(int(result.stdout, 8)) == 0o700, result.stderr


@pytest.mark.parametrize("kind", ["open to others", "a link"])
def test_embedded_refuses_a_socket_folder_of_somebody_else(tmp_path: Path, kind: str):
    """Others can make one first where it is in a shared temporary folder."""
    folder = socket_dir(tmp_path)
    if kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o755)
    nothing = {"with_postgres": False, "with_valkey": False}
    with pytest.raises(ServerFailed, match="mode 0700"), supervisor.running(tmp_path, **nothing):
        pass


def test_data_folder_may_have_any_name(tmp_path: Path):
    folder = tmp_path / "My Notes + ä & 50% #1"
    result = run(folder, *python(WRITE))
    assert result.returncode == 0, result.stderr
    result = run(folder, *MANAGE, "migrate", "--plan")
    assert "scribes.0001_initial" in result.stdout, result.stderr
    assert not socket_dir(folder).exists()


def test_socket_path_is_short_when_the_data_folder_is_deep(tmp_path: Path):
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    folder = socket_dir(deep)
    assert len(str(folder / ".s.PGSQL.5432.lock")) < 100
    assert folder != socket_dir(deep / "other")
    result = run(deep, *python(WRITE))
    assert result.returncode == 0, result.stderr


def test_embedded_starts_no_server_that_has_a_url(data: Path):
    urls = {
        "DATABASE_URL": database_url(settings.DATA_DIR),
        "REDIS_URL": redis_url(settings.DATA_DIR),
    }
    code = "import os; print(os.environ['DATABASE_URL'], os.environ['REDIS_URL'])"
    result = run(data, *python(code), **urls)
    assert result.stdout.split() == list(urls.values())
    assert not (data / "postgres").exists()
    assert not (data / "valkey").exists()


def test_embedded_uses_the_servers_that_run_already(data: Path):
    """As for `manage.py embedded` beside `make run`. They are not stopped when it ends."""
    with start_sleeping(data) as process:
        servers = left_over(data)
        assert run(data, *python(WRITE)).returncode == 0
        second = run(data, *python(READ))
        assert (second.returncode, second.stdout) == (0, "b'1'\n"), second.stderr
        assert left_over(data) == servers
        process.terminate()


def test_embedded_waits_while_the_servers_start(data: Path):
    """Whichever of the two starts them, the other one waits for it."""
    with sleeping(data) as process:
        assert run(data, *python(CONNECT)).returncode == 0
        await_command(process)
        process.terminate()


def test_embedded_says_which_server_does_not_run(data: Path):
    urls = {"REDIS_URL": redis_url(settings.DATA_DIR)}
    with start_sleeping(data, **urls) as process:
        result = run(data, "true")
        assert "already runs its servers" in result.stderr
        assert "but not valkey." in result.stderr
        process.terminate()


def test_embedded_rejects_an_unknown_command(data: Path):
    result = run(data, "no-such-command")
    assert result.returncode != 0
    assert "Name a command to run" in result.stderr


def sleeping(data: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a supervisor whose command waits."""
    code = "import time; print('up', flush=True); time.sleep(600)"
    return subprocess.Popen(
        [*MANAGE, "embedded", *python(code)],
        env=own_environment(data, **variables),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def await_command(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    if process.stdout.readline() != "up\n":
        process.communicate()
        pytest.fail("the command did not start")


def start_sleeping(data: Path, **variables: str) -> subprocess.Popen[str]:
    """The same; returns once the command runs."""
    process = sleeping(data, **variables)
    await_command(process)
    return process


@pytest.mark.parametrize("to_group", [True, False], ids=["ctrl-c", "sigterm"])
def test_embedded_stops_everything_when_interrupted(data: Path, to_group: bool):
    with start_sleeping(data) as process:
        if to_group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        assert process.wait(LONGEST_WAIT_SECONDS) != 0
    assert left_over(data) == []


def test_embedded_replaces_servers_of_a_killed_supervisor(data: Path):
    with start_sleeping(data) as process:
        os.killpg(process.pid, signal.SIGKILL)
    assert left_over(data)
    assert run(data, *python(WRITE)).returncode == 0
    eventually(lambda: left_over(data) == [])
