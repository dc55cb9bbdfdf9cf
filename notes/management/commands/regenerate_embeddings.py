from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.db.models import QuerySet
from rich.console import Console
from rich.progress import Progress

from jobs.models import BackgroundJob
from jobs.runner import enqueue
from notes.embeddings.encoder import ModelUnavailable
from notes.embeddings.regeneration import EmbeddingRegeneration, estimate
from notes.embeddings.rollout import register_model
from notes.management.user_selection import add_user_arguments, selected_users
from notes.models import Note
from scribes.models import User

POLL_SECONDS = 0.5


class Command(BaseCommand):
    help = (
        "Embed the notes of one or all users in background jobs, and show the progress until they "
        "have ended. Interrupting this command does not stop the jobs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_user_arguments(parser)
        notes = parser.add_mutually_exclusive_group()
        notes.add_argument(
            "--stale", action="store_true", help="only notes without current vectors"
        )
        notes.add_argument("--failed", action="store_true", help="only notes that failed before")
        parser.add_argument("--model", help="the folder of the model to switch to")
        parser.add_argument("--dry-run", action="store_true", help="estimate the work only")
        parser.add_argument("--no-wait", action="store_true", help="start the jobs only")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            jobs = list(self._start(selected_users(options), options))
        except ModelUnavailable as error:
            raise CommandError(str(error.detail)) from error
        if not options["no_wait"] and jobs:
            self._follow(jobs)

    def _start(self, users: QuerySet[User], options: dict[str, Any]) -> Iterator[UUID]:
        model = register_model(options["model"]) if options["model"] else None
        for user in users.iterator():
            parameters: dict[str, Any] = {"model": model.version} if model else {}
            if options["stale"]:
                parameters["only_stale"] = True
            if options["failed"]:
                failed = Note.objects.for_user(user).failed()
                parameters["item_ids"] = list(failed.values_list("pk", flat=True))
            if options["dry_run"]:
                self._print_estimate(user, parameters)
            elif parameters.get("item_ids") != []:
                yield self._enqueue(user, parameters)

    def _enqueue(self, user: User, parameters: dict[str, Any]) -> UUID:
        job, is_new = enqueue(user, EmbeddingRegeneration.name, parameters)
        state = "started" if is_new else "is already active"
        if job.parameters != parameters:
            state = f"{state} with other options: run this command again when it has ended"
        self.stdout.write(f"{user.email}: job {job.pk} {state}")
        return job.pk

    def _print_estimate(self, user: User, parameters: dict[str, Any]) -> None:
        work = estimate(user, parameters)
        seconds = f", about {work['seconds']} s" if work["seconds"] is not None else ""
        self.stdout.write(
            f"{user.email}: {work['notes']} notes, about {work['passages']} passages{seconds}"
        )

    def _follow(self, ids: list[UUID]) -> None:
        """Show the progress of the jobs. Raises CommandError if something failed."""
        console = Console(soft_wrap=True)
        jobs = BackgroundJob.objects.filter(pk__in=ids)
        show = self._show_bar if console.is_terminal else self._show_lines
        show(jobs, console)
        failed = [job for job in jobs if job.status != "completed" or job.failed_items]
        for job in failed:
            self.stderr.write(f"job {job.pk}: {job.status}, {job.failed_items} notes failed")
        if failed:
            raise CommandError("Some notes were not embedded: see GET /jobs/{job_id}/failures.")

    def _show_bar(self, jobs: QuerySet[BackgroundJob], console: Console) -> None:
        with Progress(console=console) as progress:
            bar = progress.add_task("Embedding notes", total=None)
            for done, total in progress_of(jobs):
                progress.update(bar, completed=done, total=total or None)

    def _show_lines(self, jobs: QuerySet[BackgroundJob], console: Console) -> None:
        last = ""
        for done, total in progress_of(jobs):
            line = f"{done} of {total} notes"
            if line != last:
                console.print(line)
            last = line


def progress_of(jobs: QuerySet[BackgroundJob]) -> Iterator[tuple[int, int]]:
    """The number of notes that are done and of all notes, repeatedly until the jobs have ended."""
    while True:
        now = list(jobs.all())
        yield sum(job.done_items for job in now), sum(job.total_items for job in now)
        if all(job.is_terminal for job in now):
            return
        time.sleep(POLL_SECONDS)
