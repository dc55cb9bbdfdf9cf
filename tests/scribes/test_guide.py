"""docs/guide.md, followed to the letter: its commands run in order, and print what it shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Timer
from typing import NamedTuple

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands

from celery_app import app
from scribes import embedded, mail_sink
from tests.processes import PROGRAMS, Process, free_port, left_over, running

ROOT = settings.BASE_DIR
PAGE = ROOT / "docs" / "guide.md"
STEP = re.compile(r"^```(\S[^\n]*)\n(.*?)^```$|^<!-- (Ctrl-C):(.*?)-->$", re.MULTILINE | re.DOTALL)
COMMAND_SECONDS = 60
# Such commands change nothing: they are repeated until what happens meanwhile is there to see.
LOOKS = re.compile(r"doctor|queues|redis-cli|curl -s \S+/(?:health|metrics|jobs)")
LOOK_SECONDS = 30


class Step(NamedTuple):
    kind: str
    text: str


def steps() -> list[Step]:
    found = STEP.findall(PAGE.read_text())
    return [
        Step(kind or comment, text or command.strip()) for kind, text, comment, command in found
    ]


# --- What the page shows ----------------------------------------------------------------------

PARTS = re.compile(
    r"((?:^|\s*\n)[ \t]*…\s*\n|…|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{8}\b|\d[\d.,]*|\s+)"
)


def shows(output: str, shown: str) -> bool:
    """Numbers and ids may be others, columns as wide as what is in them; … is anything."""
    pattern = "".join(map(_pattern, PARTS.split(shown.strip())))
    return re.search(rf"^{pattern}\s*$", output, re.MULTILINE) is not None


def _pattern(part: str) -> str:
    if part.strip() == "…":
        return ".*" if part == "…" else r"(?:^|\s)(?:.*\n)*?\s*"
    if re.fullmatch(r"[0-9a-f]{8}|[0-9a-f-]{36}", part):
        return rf"[0-9a-f-]{{{len(part)}}}"
    if part[:1].isdigit():
        return r"\d[\d.,]*"
    return r"\s+" if part.isspace() else re.escape(part)


# --- Somebody who reads it --------------------------------------------------------------------

# What redis-cli does, where it is not installed: one command, and a line for each value.
REDIS_CLI = """#!{python}
import sys, redis
connection = redis.UnixDomainSocketConnection(path="{socket}", decode_responses=True)
connection.send_command(*sys.argv[1:])
answer = connection.read_response()
print(*(answer if isinstance(answer, list) else [answer]), sep="\\n")
"""
END = "\004"
# What a process prints as soon as it does its work.
STARTED = {
    # tests/acceptance/test_make_run.py looks at all that comes then.
    "make run": "Scribes is starting",
    "gunicorn": "Listening at",
    "run_worker": "is ready",
    "beat": "beat: Starting",
    "flower": "Connected to",
}


class Terminal(NamedTuple):
    process: Process
    stack: ExitStack


class Reader:
    """Has servers, a shell, and as many terminals as it takes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = folder / "servers"
        self.web_port, self.flower_port = str(free_port()), str(free_port())
        self.env = self._environment()
        self.shell = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.env,
            cwd=ROOT,
        )
        self.terminals: dict[str, Terminal] = {}

    def _environment(self) -> dict[str, str]:
        """The settings of the page and of this machine, none of the tests'."""
        inherited = {k: v for k, v in os.environ.items() if k not in settings.ENVIRONMENT_NAMES}
        programs = [self.folder, PROGRAMS, embedded.postgres_bin("psql").parent]
        return inherited | {
            "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
            "DJANGO_SETTINGS_MODULE": "scribes.settings",
            "PYTHONUNBUFFERED": "1",
            "DATA_DIR": str(self.folder / "data"),
            "ENV_FILE": str(self.folder / "env"),
            "WEB_PORT": self.web_port,
            "FLOWER_PORT": self.flower_port,
            "WORKER_CONCURRENCY": "1",
            # As on a terminal.
            "LOG_FORMAT": "text",
            # Who is silent is found out after 6 s.
            "HEARTBEAT_SECONDS": "1",
        }

    def typed(self, text: str) -> str:
        """With what this machine has in place of the page's addresses and files."""
        database, mail = embedded.database_url(self.servers), mail_sink.url(self.servers)
        for theirs, ours in {
            "localhost:8000": f"localhost:{self.web_port}",
            "127.0.0.1:8000": f"127.0.0.1:{self.web_port}",
            "postgresql://scribes:password@localhost:5432/scribes": database,
            "postgresql://scribes:***@localhost:5432/scribes": database,
            "redis://localhost:6379/0": embedded.redis_url(self.servers),
            "smtp+tls://user:password@mail.example.com:587": mail,
            "smtp+tls://user:***@mail.example.com:587": mail,
            ".example .env": f".example {self.folder / 'env'}",
            ".data/": f"{self.folder / 'data'}/",
            # What pip would install is there.
            "make run": "make --old-file=.venv/.installed run",
        }.items():
            text = text.replace(theirs, ours)
        return text

    def run(self, commands: str) -> tuple[str, int]:
        """What they print; and the status of one that failed, or 0."""
        assert self.shell.stdin
        assert self.shell.stdout
        watchdog = Timer(COMMAND_SECONDS, self.shell.kill)
        watchdog.start()
        self.shell.stdin.write(
            f"failed=0; trap 'failed=$?' ERR\n{{\n{self.typed(commands)}\n}} </dev/null\n"
            f"trap - ERR; printf '\\n{END}%s\\n' $failed\n"
        )
        self.shell.stdin.flush()
        output = ""
        while not (line := self.shell.stdout.readline()).startswith(END):
            assert line, f"{commands}\ntook too long:\n{output}"
            output += line
        watchdog.cancel()
        return output, int(line.removeprefix(END))

    def open_terminals(self, lines: str) -> None:
        commands = lines.splitlines()
        for command in commands:
            log = self.folder / f"terminal-{len(self.terminals)}.log"
            stack = ExitStack()
            line = ["bash", "-c", f"exec env {self.typed(command)}"]
            process = stack.enter_context(running(line, log, self.env))
            self.terminals[command] = Terminal(process, stack)
        for command in commands:
            (sign,) = [sign for program, sign in STARTED.items() if program in command]
            self.terminals[command].process.await_output(sign)

    def close_terminals(self, start: str = "") -> None:
        """Those whose command starts so. What they printed can still be read."""
        closing = [
            self.terminals[command] for command in self.terminals if command.startswith(start)
        ]
        for terminal in closing:
            if terminal.process.popen.poll() is None:
                terminal.process.popen.terminate()
        for terminal in closing:
            terminal.stack.close()

    def close(self) -> None:
        self.close_terminals()
        self.shell.communicate("exit\n")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with embedded.running(tmp_path / "servers", mail=True):
        reader = Reader(tmp_path)
        install_redis_cli(tmp_path, embedded.socket_dir(reader.servers) / "valkey.sock")
        borrow_models(tmp_path / "data")
        try:
            yield reader
        finally:
            reader.close()
    assert left_over(tmp_path) == []


def install_redis_cli(folder: Path, socket: Path) -> None:
    """One that finds the servers of the page on their socket."""
    script = REDIS_CLI.format(python=sys.executable, socket=socket)
    if program := shutil.which("redis-cli"):
        script = f'#!/bin/sh\nexec {program} -s {socket} "$@"\n'
    (folder / "redis-cli").write_text(script)
    (folder / "redis-cli").chmod(0o700)


def borrow_models(data: Path) -> None:
    """They are converted once for all tests, which takes a while."""
    models = settings.DATA_DIR / "models"
    models.mkdir(parents=True, exist_ok=True)
    data.mkdir()
    (data / "models").symlink_to(models)


# --- Following it -----------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_everything_works_as_the_page_says(reader: Reader):
    for kind, text in steps():
        language, _, rest = kind.partition(" ")
        if language == "text":
            assert_has_printed(reader, text, rest)
        else:
            FOLLOW[kind](reader, text)


def assert_succeeds(reader: Reader, text: str) -> None:
    output, status = reader.run(text)
    assert status == 0, f"{text}\n{output}"


def assert_prints(reader: Reader, text: str) -> None:
    for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        deadline = time.monotonic() + LOOK_SECONDS
        while True:
            output, _ = reader.run(command)
            if shows(output, reader.typed(shown)):
                break
            again = LOOKS.search(command) and time.monotonic() < deadline
            assert again, f"$ {command}\n{output}\nThe page has:\n{shown}"
            time.sleep(0.2)


def assert_has_printed(reader: Reader, text: str, command: str) -> None:
    output = reader.terminals[command].process.output
    assert shows(output, text), f"{text}\n{output}"


def add_settings(reader: Reader, text: str) -> None:
    with (reader.folder / "env").open("a") as file:
        file.write(reader.typed(text))


def assert_right_elsewhere(reader: Reader, text: str) -> None:
    assert_names_exist(text)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


FOLLOW: dict[str, Callable[[Reader, str], None]] = {
    "bash": assert_succeeds,
    "bash terminal": Reader.open_terminals,
    "Ctrl-C": Reader.close_terminals,
    "console": assert_prints,
    "env": add_settings,
    "bash elsewhere": assert_right_elsewhere,
    "powershell": lambda reader, text: assert_names_exist(text),
}


def assert_names_exist(text: str) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for unit in re.findall(r"\bscribes-(?:web|worker|beat|flower|\w+\.service)", text):
        assert list((ROOT / "deploy" / "systemd").glob(f"{unit.removesuffix('.service')}.service"))
    for path in re.findall(r"deploy/[\w/.*-]+[\w*]|\.env\.example|requirements\.txt", text):
        assert list(ROOT.glob(path)), path
    for command in re.findall(r"manage\.py (\w+)", text):
        assert command in get_commands()
    for service in re.findall(r"docker compose (?:run --rm|up .*--scale|logs) (\w+)", text):
        assert service in services


# --- What it says besides ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", ["docs/guide.md", "README.md", "deploy/README.md", "deploy/windows.md"]
)
def test_what_it_names_and_links_to_is_there(page: str):
    text = (ROOT / page).read_text()
    assert_names_exist(text)
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(file: Path) -> list[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def rows(first: str) -> list[tuple[str, str]]:
    """The first two columns of the table whose first column has this title."""
    (table,) = re.findall(
        rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE
    )
    cells = [row.strip("| ").split(" | ") for row in table.splitlines()]
    return [(row[0].strip("`"), row[1]) for row in cells]


def test_the_tasks_are_all_there_are():
    app.loader.import_default_modules()
    tasks = {name for name in app.tasks if not name.startswith("celery.")}
    assert {name for name, _ in rows("task")} == tasks


def test_the_defaults_are_those_of_the_settings():
    example = (ROOT / ".env.example").read_text()
    for name, default in rows("variable"):
        assert re.search(rf"^(?:# )?{name}={default}$", example, re.MULTILINE), name


def test_what_doctor_is_said_to_say_it_does_say():
    files = ("scribes/server_checks.py", "jobs/checks.py", "notes/checks.py")
    code = " ".join((ROOT / file).read_text() for file in files)
    for said, _ in rows("doctor says"):
        for part in re.split("…|PostgreSQL (?=refuses|has|is on|does)|, (?=The)", said):
            assert part.strip() in code, said
