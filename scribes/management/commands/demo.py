"""A tour of Scribes over HTTP. It uses the API only.

The one exception: it sends beat's message itself, since the next sweep may be 15 minutes away.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import psutil
from celery import current_app
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as ProgressBar
from rich.progress import track

from scribes.embedded import processes
from scribes.embedded.addresses import mail_folder, mail_url
from scribes.embedded.generated_secrets import secret
from scribes.embedded.ports import free_port
from scribes.embedded.processes import Addresses
from scribes.embedded.progress import Progress
from scribes.embedded.sample_texts import psalm

EMAIL = "demo@example.com"
REQUEST_TIMEOUT_SECONDS = 600
POLL_SECONDS = 0.2
# The API refuses a reminder whose time is past when the request arrives.
REMINDER_SECONDS = 5
QUESTIONS = (
    "Who looks after me like a shepherd after his sheep?",
    "How can I be made clean again after a great sin?",
    "What do the stars and the night sky tell about God?",
)


class Command(BaseCommand):
    help = (
        "Run everything once: import the 150 Psalms as notes, embed them, search them by meaning, send a "
        "reminder, and stop."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console()
        processes.prepare()
        try:
            with running_scribes(console) as api:
                tour(api, console)
        except ApiError as error:
            raise CommandError(
                f"{error}\nThe output of the processes is in {log_path()}."
            ) from error
        console.print("All processes are stopped. [bold]make run[/] starts them until Ctrl-C.")


@contextmanager
def running_scribes(console: Console) -> Iterator[Api]:
    """Web, worker, beat and Flower on free ports, for the length of a with block."""
    addresses = Addresses(free_port(), free_port())
    command, environment = processes.honcho(addresses)
    with log_path().open("w") as log:
        runner = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        api = Api(addresses.web, runner)
        with console.status("Starting web, worker, beat and Flower"):
            api.wait()
        console.print(f"Running: API {addresses.web} · Flower {addresses.flower}")
        yield api
    finally:
        runner.terminate()
        runner.wait()


def log_path() -> Any:
    return settings.DATA_DIR / "demo.log"


class ApiError(Exception):
    """The API answered with an error, or did not answer."""


class Api:
    """JSON over HTTP, with a bearer token after sign_in."""

    def __init__(self, base: str, runner: subprocess.Popen[bytes]) -> None:
        self.base = base
        self.runner = runner
        self.token = ""

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded response. Raises ApiError."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 our own web process
            self.base + path, data, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise ApiError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        except OSError as error:
            raise ApiError(f"{method} {path}: {error}") from error

    def turns(self) -> Iterator[None]:
        """A turn each POLL_SECONDS, while the processes run and make progress."""
        progress = Progress(psutil.Process(self.runner.pid), lambda: log_path().stat().st_size)
        while self.runner.poll() is None and not progress.has_stalled():
            yield
            time.sleep(POLL_SECONDS)

    def wait(self) -> None:
        """Wait for the first response. Raises ApiError if the processes end or make no progress."""
        error = None
        for _ in self.turns():
            try:
                self.call("GET", "/")
                return
            except ApiError as latest:
                error = latest
        raise ApiError("The processes did not start") from error

    def sign_in(self, email: str, password: str) -> None:
        """Sign up, or sign in if the account exists, and keep the token."""
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
    existing = titles(api)
    missing = [number for number in range(1, 151) if f"Psalm {number}" not in existing]
    if not missing:
        console.print("The Psalms were imported by an earlier run.")
    for number in track(missing, f"Importing {len(missing)} Psalms", console=console):
        api.call("POST", "/notes", psalm(number))


def titles(api: Api) -> set[str]:
    """The titles of all notes, read page by page."""
    found: set[str] = set()
    for offset in count(0, 100):
        page = api.call("GET", f"/notes?limit=100&offset={offset}")
        found.update(note["title"] for note in page["notes"])
        if offset + 100 >= page["total"]:
            break
    return found


def regenerate(api: Api, console: Console) -> dict[str, Any]:
    """Start the job and follow it until it has completed; the job. Raises ApiError."""
    job_id = api.call("POST", "/semantic/regenerate-embeddings")["task_id"]
    job: dict[str, Any] = {}
    with ProgressBar(console=console) as progress:
        bar = progress.add_task("Regenerating embeddings", total=100)
        for _ in api.turns():
            job = api.call("GET", f"/jobs/{job_id}")
            progress.update(bar, completed=job["progress_percent"])
            if job["status"] == "completed":
                return job
            if job["completed_at"]:
                break
    raise ApiError(f"The job did not complete: {job}")


def elapsed(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def ask(api: Api, console: Console, question: str) -> None:
    results = api.call("POST", "/semantic/search", {"query": question, "limit": 2})["results"]
    console.print(f"\n[bold]{escape(question)}[/]")
    for result in results:
        note, passage = result["note"], result["passage"]["text"].replace("\n", " ")
        excerpt = passage[:200] + ("…" if len(passage) > 200 else "")
        score = result["similarity_score"]
        console.print(f"  {score:.2f}  [cyan]{escape(note['title'])}[/]  {escape(excerpt)}")


def remind(api: Api, console: Console) -> None:
    """Create a reminder that is due in a few seconds, and wait for its mail. Raises ApiError."""
    (note,) = api.call("GET", "/notes?limit=1")["notes"]
    due = datetime.now(UTC) + timedelta(seconds=REMINDER_SECONDS)
    reminder = api.call(
        "POST", "/reminders", {"note_id": note["id"], "scheduled_at": due.isoformat()}
    )
    with console.status("Waiting for a reminder"):
        time.sleep(REMINDER_SECONDS)
        current_app.send_task("reminders.tasks.sweep")
        delivery = delivered(api, reminder["id"])
    console.print(
        f"\nReminder for [cyan]{escape(note['title'])}[/] sent by e-mail at {delivery['sent_at']}"
    )
    if mail_url(settings.DATA_DIR) == settings.EMAIL_URL:
        console.print(f"The mail is in {mail_folder(settings.DATA_DIR)}")


def delivered(api: Api, reminder_id: int) -> dict[str, Any]:
    """The reminder's delivery once it is sent. Raises ApiError if the processes stop working before."""
    delivery: dict[str, Any] | None = None
    for _ in api.turns():
        delivery = api.call("GET", f"/reminders/{reminder_id}")["last_delivery"]
        if delivery and delivery["status"] == "sent":
            return delivery
    raise ApiError(f"The reminder was not sent: {delivery}")
