"""Follows docs/guide.md to the letter, and checks the names and links in all pages."""

from __future__ import annotations

import os
import pkgutil
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
from django.urls import resolve

from celery_app import app
from reminders.channels import CHANNELS
from scribes.embedded import supervisor
from scribes.embedded.addresses import database_url, mail_url, redis_url, socket_dir
from scribes.embedded.ports import free_port
from scribes.embedded.postgres import postgres_bin
from tests.helpers.processes import LONGEST_WAIT_SECONDS, PROGRAMS, Process, left_over, running

ROOT: Path = settings.BASE_DIR
PAGE = ROOT / "docs" / "guide.md"
STEP = re.compile(r"^```(\S[^\n]*)\n(.*?)^```$|^<!-- (Ctrl-C):(.*?)-->$", re.MULTILINE | re.DOTALL)
# Commands that change nothing. They are repeated until they print what the page shows: often enough for
# what they wait for, which is a worker that has started or has been missed. A busy machine repeats
# them more slowly, too.
READ_ONLY = re.compile(r"doctor|queues|redis-cli|curl -s \S+/(?:health|metrics|jobs)")
READ_ONLY_TRIES = 60
READ_ONLY_PAUSE_SECONDS = 1


class Step(NamedTuple):
    kind: str
    text: str


def steps() -> list[Step]:
    found = STEP.findall(PAGE.read_text())
    return [
        Step(kind or comment, text or command.strip()) for kind, text, comment, command in found
    ]


# --- What the page shows --------------------------------------------------------------------

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
PARTS = re.compile(rf"((?:^|\s*\n)[ \t]*…\s*\n|…|{UUID}|\b[0-9a-f]{{8}}\b|\d[\d.,]*|\s+)")


def shows(output: str, shown: str) -> bool:
    """Whether the output contains the shown text. Numbers, ids and spacing may differ, and … stands
    for anything."""
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


# --- The reader -----------------------------------------------------------------------------

# In place of redis-cli if it is not installed: runs one command and prints one line per value.
REDIS_CLI = """#!{python}
import sys, redis
connection = redis.UnixDomainSocketConnection(path="{socket}", decode_responses=True)
connection.send_command(*sys.argv[1:])
answer = connection.read_response()
print(*(answer if isinstance(answer, list) else [answer]), sep="\\n")
"""
END = "\004"
# What a process prints when it is ready.
READY = {
    # tests/acceptance/test_make_run.py waits for all processes of `make run`.
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
    """A person who types what the page says: into one shell, and into terminals that stay open."""

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
        """The settings of the page and of this machine, without those of the tests."""
        inherited = {k: v for k, v in os.environ.items() if k not in settings.ENVIRONMENT_NAMES}
        programs = [self.folder, PROGRAMS, postgres_bin("psql").parent]
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
            # So that a stopped worker is reported after 6 s.
            "HEARTBEAT_SECONDS": "1",
        }

    def typed(self, text: str) -> str:
        """The text with this machine's addresses and files in place of the page's."""
        database, mail = database_url(self.servers), mail_url(self.servers)
        for on_the_page, here in {
            "localhost:8000": f"localhost:{self.web_port}",
            "127.0.0.1:8000": f"127.0.0.1:{self.web_port}",
            "postgresql://scribes:password@localhost:5432/scribes": database,
            "postgresql://scribes:***@localhost:5432/scribes": database,
            "redis://localhost:6379/0": redis_url(self.servers),
            "smtp+tls://user:password@mail.example.com:587": mail,
            "smtp+tls://user:***@mail.example.com:587": mail,
            ".example .env": f".example {self.folder / 'env'}",
            ".data/": f"{self.folder / 'data'}/",
            # All packages are installed already.
            "make run": "make --old-file=.venv/.installed run",
        }.items():
            text = text.replace(on_the_page, here)
        return text

    def run(self, commands: str) -> tuple[str, int]:
        """The output of the commands, and the exit status of one that failed, or 0."""
        assert self.shell.stdin
        assert self.shell.stdout
        watchdog = Timer(LONGEST_WAIT_SECONDS, self.shell.kill)
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
            (ready,) = [text for program, text in READY.items() if program in command]
            self.terminals[command].process.await_output(ready)

    def close_terminals(self, start: str = "") -> None:
        """Stop the commands that start so. Their output can still be read."""
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
    with supervisor.running(tmp_path / "servers", with_mail=True):
        reader = Reader(tmp_path)
        install_redis_cli(tmp_path, socket_dir(reader.servers) / "valkey.sock")
        share_models(tmp_path / "data")
        try:
            yield reader
        finally:
            reader.close()
    assert left_over(tmp_path) == []


def install_redis_cli(folder: Path, socket: Path) -> None:
    """A redis-cli that connects to the reader's server without any options."""
    script = REDIS_CLI.format(python=sys.executable, socket=socket)
    if program := shutil.which("redis-cli"):
        script = f'#!/bin/sh\nexec {program} -s {socket} "$@"\n'
    (folder / "redis-cli").write_text(script)
    (folder / "redis-cli").chmod(0o700)


def share_models(data: Path) -> None:
    """Use the models that other tests have converted: a conversion takes long."""
    models = settings.DATA_DIR / "models"
    models.mkdir(parents=True, exist_ok=True)
    data.mkdir()
    (data / "models").symlink_to(models)


# --- Following the page ---------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_guide_works_as_written(reader: Reader):
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
        tries = READ_ONLY_TRIES if READ_ONLY.search(command) else 1
        while not shows(output := reader.run(command)[0], reader.typed(shown)):
            tries -= 1
            assert tries, f"$ {command}\n{output}\nThe page has:\n{shown}"
            time.sleep(READ_ONLY_PAUSE_SECONDS)


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


# --- Names and links ------------------------------------------------------------------------

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "deploy/README.md",
    "deploy/windows.md",
    *(f"docs/{name}.md" for name in ("architecture", "guide", "reliability", "search")),
)
FOLDERS = "scribes|jobs|notes|reminders|tests|bench|deploy|docs"
# A file or folder of the tree, with its folder or, as in `views.py`, without.
FILE = re.compile(rf"`((?:{FOLDERS})/[\w/.*-]*|[\w.-]+\.(?:py|txt|toml|yml|example))`")
DOTTED_NAME = re.compile(r"`((?:scribes|jobs|notes|reminders|tests)(?:\.\w+)+)(?:\(.*?\))?`")
REQUEST = re.compile(r"`(?:GET|POST|PATCH|DELETE)(?:`, `[A-Z]+)* (/[\w/{}-]+)")
IDS = {"{job_id}": "0f8fad5b-d9cb-469f-a165-70867728950e"}


def assert_names_exist(text: str) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for unit in re.findall(r"\bscribes-(?:web|worker|beat|flower|\w+\.service)", text):
        assert list((ROOT / "deploy" / "systemd").glob(f"{unit.removesuffix('.service')}.service"))
    for path in re.findall(r"deploy/[\w/.*-]+[\w*]|\.env\.example|requirements\.txt", text):
        assert list(ROOT.glob(path)), path
    for command in re.findall(r"manage\.py (\w+)", text):
        assert command in get_commands(), command
    for service in re.findall(r"docker compose (?:run --rm|up .*--scale|logs) (\w+)", text):
        assert service in services
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:`|^\$ )(?:\w+=\S+ )?make\s([a-z-]+)", text, re.MULTILINE):
        assert target in targets, target


@pytest.mark.parametrize("page", PAGES)
def test_page_names_what_exists(page: str):
    text = (ROOT / page).read_text()
    assert_names_exist(text)
    for path in FILE.findall(text):
        assert list(ROOT.glob(path)) or list(ROOT.glob(f"*/{path}")), path
    for name in DOTTED_NAME.findall(text):
        pkgutil.resolve_name(name)  # or it raises an error
    for path in REQUEST.findall(text):
        resolve(with_ids(path))  # or it raises an error


def with_ids(path: str) -> str:
    """The path with an id in place of each placeholder."""
    return re.sub(r"{\w+}", lambda part: IDS.get(part[0], "1"), path)


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "docs/benchmarks.md"])
def test_page_links_to_what_exists(page: str):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def anchors(file: Path) -> list[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


# --- Tables ---------------------------------------------------------------------------------


def rows(first: str, page: str = "docs/guide.md") -> list[tuple[str, str]]:
    """The first two columns of the page's table whose first column has this title."""
    text = (ROOT / page).read_text()
    (table,) = re.findall(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    cells = [row.strip("| ").split(" | ") for row in table.splitlines()]
    return [(row[0].strip("`"), row[1]) for row in cells]


def test_guide_lists_every_task_with_its_queue():
    app.loader.import_default_modules()
    tasks = {name for name in app.tasks if not name.startswith(("celery.", "tests."))}
    listed = dict(rows("task"))
    assert set(listed) == tasks
    assert set(listed.values()) == {*app.amqp.queues, "all four"}


def test_guide_lists_every_channel():
    assert {name for name, _ in rows("channel")} == set(CHANNELS)


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_settings_table_has_the_real_defaults(page: str):
    example = (ROOT / ".env.example").read_text()
    for names, default in rows("variable", page):
        for name in names.split("`, `"):
            value = default if default.isdigit() else ".*"
            assert re.search(rf"^(?:# )?{name}={value}$", example, re.MULTILINE), name


def test_guide_quotes_real_messages_of_doctor():
    files = [*(ROOT / "scribes/monitoring/probes").glob("*.py"), *ROOT.glob("*/probes.py")]
    code = " ".join(file.read_text() for file in files)
    for quoted, _ in rows("doctor says"):
        for part in re.split("…|PostgreSQL (?=rejects|has|is on|does)|, (?=The)", quoted):
            assert part.strip() in code, quoted
