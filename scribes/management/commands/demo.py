"""A tour over HTTP: it knows the API and nothing of the code behind it.

Only beat's message is sent straight to the broker, as nobody wants to wait for the quarter of an hour.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pythonbible
from celery import current_app
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, track

from scribes import mail_sink, processes
from scribes.processes import Addresses
from scribes.secret_files import secret

EMAIL = "demo@example.com"
START_TIMEOUT_SECONDS = 60
JOB_TIMEOUT_SECONDS = 600
POLL_SECONDS = 0.2
REMINDER_SECONDS = 2
MAIL_TIMEOUT_SECONDS = 120
QUESTIONS = (
    "Who looks after me like a shepherd after his sheep?",
    "How can I be made clean again after a great sin?",
    "What do the stars and the night sky tell about God?",
)


class Command(BaseCommand):
    help = "Run everything, embed the 150 Psalms as notes, search them by meaning, remind of one, and stop."

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console()
        processes.prepare()
        try:
            with running_scribes(console) as api:
                tour(api, console)
        except ApiError as error:
            raise CommandError(f"{error}\nThe processes' output is in {log_path()}.") from error
        console.print("Everything is stopped. [bold]make run[/] leaves it running.")


@contextmanager
def running_scribes(console: Console) -> Iterator[Api]:
    """Web, worker, beat and Flower on free ports, for the length of a with block."""
    addresses = Addresses(free_port(), free_port())
    command, environment = processes.honcho(addresses)
    with log_path().open("w") as log:
        runner = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        api = Api(addresses.web)
        with console.status("Starting web, worker, beat and Flower"):
            api.wait(runner)
        console.print(f"Running: API {addresses.web} · Flower {addresses.flower}")
        yield api
    finally:
        runner.terminate()
        runner.wait()


def log_path() -> Any:
    return settings.DATA_DIR / "demo.log"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class ApiError(Exception):
    """The API answered with an error, or not at all."""


class Api:
    """JSON over HTTP, with a bearer token once there is one."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.token = ""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer. Raises ApiError."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 our own web process
            self.base + path, data, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ApiError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        except OSError as error:
            raise ApiError(f"{method} {path}: {error}") from error

    def wait(self, runner: subprocess.Popen[bytes]) -> None:
        """Until the first answer. Raises ApiError when the processes have ended or take too long."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                self.call("GET", "/")
                return
            except ApiError:
                if runner.poll() is not None or time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def sign_in(self, email: str, password: str) -> None:
        """Sign up, or sign in where the account is there already; keep the token."""
        account = {"email": email, "password": password}
        try:
            answer = self.call("POST", "/auth/signup", account)
        except ApiError:
            answer = self.call("POST", "/auth/login", account)
        self.token = answer["meta"]["access_token"]


# --- The tour -------------------------------------------------------------------------------


def tour(api: Api, console: Console) -> None:
    api.sign_in(EMAIL, secret(settings.DATA_DIR, "demo-password"))
    import_psalms(api, console)
    job = regenerate(api, console)
    seconds = elapsed(job["started_at"], job["completed_at"])
    rate = job["processed_items"] / seconds
    console.print(f"Embedded {job['processed_items']} notes in {seconds:.1f} s: {rate:.1f} notes/s")
    for question in QUESTIONS:
        ask(api, console, question)
    remind(api, console)


def import_psalms(api: Api, console: Console) -> None:
    there = titles(api)
    missing = [number for number in range(1, 151) if f"Psalm {number}" not in there]
    if not missing:
        console.print("The Psalms are there already, from the last time.")
    for number in track(missing, f"Importing {len(missing)} Psalms", console=console):
        api.call("POST", "/notes", psalm(number))


def titles(api: Api) -> set[str]:
    """Of all notes, page by page."""
    found: set[str] = set()
    for offset in count(0, 100):
        page = api.call("GET", f"/notes?limit=100&offset={offset}")
        found.update(note["title"] for note in page["notes"])
        if offset + 100 >= page["total"]:
            break
    return found


def psalm(number: int) -> dict[str, Any]:
    """One psalm of the King James Bible as a note, a verse a line."""
    book = pythonbible.Book.PSALMS
    verses = range(1, pythonbible.get_number_of_verses(book, number) + 1)
    text = (
        pythonbible.get_verse_text(
            pythonbible.get_verse_id(book, number, verse), version=pythonbible.Version.KING_JAMES
        )
        for verse in verses
    )
    # Square brackets mark the words that the translators added.
    content = "\n".join(text).replace("[", "").replace("]", "")
    title = f"Psalm {number}"
    return {"title": title, "content": content, "tags": ["psalms"], "scripture_refs": title}


def regenerate(api: Api, console: Console) -> dict[str, Any]:
    """Start the job and follow it to its end; the job as it then is. Raises ApiError."""
    job_id = api.call("POST", "/semantic/regenerate-embeddings")["task_id"]
    deadline = time.monotonic() + JOB_TIMEOUT_SECONDS
    with Progress(console=console) as progress:
        bar = progress.add_task("Regenerating embeddings", total=100)
        while time.monotonic() < deadline:
            job: dict[str, Any] = api.call("GET", f"/jobs/{job_id}")
            progress.update(bar, completed=job["progress_percent"])
            if job["status"] == "completed":
                return job
            if job["completed_at"]:
                break
            time.sleep(POLL_SECONDS)
    raise ApiError(f"The job did not complete: {job}")


def elapsed(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def ask(api: Api, console: Console, question: str) -> None:
    found = api.call("POST", "/semantic/search", {"query": question, "limit": 2})["results"]
    console.print(f"\n[bold]{escape(question)}[/]")
    for result in found:
        note, passage = result["note"], result["passage"]["text"].replace("\n", " ")
        excerpt = passage[:200] + ("…" if len(passage) > 200 else "")
        score = result["similarity_score"]
        console.print(f"  {score:.2f}  [cyan]{escape(note['title'])}[/]  {escape(excerpt)}")


def remind(api: Api, console: Console) -> None:
    """Make a reminder that is due in a moment, and wait until its mail is there. Raises ApiError."""
    (note,) = api.call("GET", "/notes?limit=1")["notes"]
    due = datetime.now(UTC) + timedelta(seconds=REMINDER_SECONDS)
    reminder = api.call(
        "POST", "/reminders", {"note_id": note["id"], "scheduled_at": due.isoformat()}
    )
    with console.status("Waiting for a reminder"):
        time.sleep(REMINDER_SECONDS)
        current_app.send_task("reminders.tasks.sweep", queue="reminders")
        delivery = delivered(api, reminder["id"])
    console.print(
        f"\nReminded of [cyan]{escape(note['title'])}[/] by e-mail at {delivery['sent_at']}"
    )
    if mail_sink.url(settings.DATA_DIR) == settings.EMAIL_URL:
        console.print(f"The mail is in {mail_sink.folder(settings.DATA_DIR)}")


def delivered(api: Api, reminder_id: int) -> dict[str, Any]:
    """The reminder's delivery once it is sent. Raises ApiError if it fails, or is not in time."""
    deadline = time.monotonic() + MAIL_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        delivery: dict[str, Any] | None = api.call("GET", f"/reminders/{reminder_id}")[
            "last_delivery"
        ]
        if delivery and delivery["status"] == "sent":
            return delivery
        time.sleep(POLL_SECONDS)
    raise ApiError(f"The reminder was not sent: {delivery}")
