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
from notes import indexing, serving
from notes.embedding import ModelUnavailable
from notes.indexing import EmbeddingRegeneration
from notes.models import Note
from scribes.models import User

POLL_SECONDS = 0.5


class Command(BaseCommand):
    help = (
        "Embed the notes of one user or of all: as background jobs, which this command follows to "
        "their end. Interrupting it stops the looking, not the work."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_user_arguments(parser)
        which = parser.add_mutually_exclusive_group()
        which.add_argument(
            "--stale", action="store_true", help="only notes without current vectors"
        )
        which.add_argument("--failed", action="store_true", help="only notes that failed last time")
        parser.add_argument("--model", help="the folder of the model to go over to")
        parser.add_argument("--dry-run", action="store_true", help="only say how much work it is")
        parser.add_argument("--no-wait", action="store_true", help="only start the jobs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            jobs = list(self._start(users(options), options))
        except ModelUnavailable as error:
            raise CommandError(str(error.detail)) from error
        if not options["no_wait"] and jobs:
            self._follow(jobs)

    def _start(self, people: QuerySet[User], options: dict[str, Any]) -> Iterator[UUID]:
        model = serving.registered(options["model"]) if options["model"] else None
        for user in people.iterator():
            parameters: dict[str, Any] = {"model": model.version} if model else {}
            if options["stale"]:
                parameters["only_stale"] = True
            if options["failed"]:
                failed = Note.objects.for_user(user).failed()
                parameters["item_ids"] = list(failed.values_list("pk", flat=True))
            if options["dry_run"]:
                self._say_how_much(user, parameters)
            elif parameters.get("item_ids") != []:
                yield self._enqueue(user, parameters)

    def _enqueue(self, user: User, parameters: dict[str, Any]) -> UUID:
        job, is_new = enqueue(user, EmbeddingRegeneration.name, parameters)
        state = "started" if is_new else "is under way already"
        if job.parameters != parameters:
            state = f"{state}, another one than this: run the command again when it has ended"
        self.stdout.write(f"{user.email}: job {job.pk} {state}")
        return job.pk

    def _say_how_much(self, user: User, parameters: dict[str, Any]) -> None:
        found = indexing.estimate(user, parameters)
        about = f", about {found['seconds']} s" if found["seconds"] is not None else ""
        self.stdout.write(
            f"{user.email}: {found['notes']} notes, about {found['passages']} passages{about}"
        )

    def _follow(self, ids: list[UUID]) -> None:
        """Raises CommandError where something failed."""
        console = Console(soft_wrap=True)
        jobs = BackgroundJob.objects.filter(pk__in=ids)
        show = self._follow_with_bar if console.is_terminal else self._follow_with_lines
        show(jobs, console)
        failed = [job for job in jobs if job.status != "completed" or job.failed_items]
        for job in failed:
            self.stderr.write(f"job {job.pk}: {job.status}, {job.failed_items} notes failed")
        if failed:
            raise CommandError("Not all notes were embedded; GET /jobs/{job_id}/failures says why.")

    def _follow_with_bar(self, jobs: QuerySet[BackgroundJob], console: Console) -> None:
        with Progress(console=console) as progress:
            bar = progress.add_task("Embedding notes", total=None)
            for done, total in progress_of(jobs):
                progress.update(bar, completed=done, total=total or None)

    def _follow_with_lines(self, jobs: QuerySet[BackgroundJob], console: Console) -> None:
        last = ""
        for done, total in progress_of(jobs):
            line = f"{done} of {total} notes"
            if line != last:
                console.print(line)
            last = line


def progress_of(jobs: QuerySet[BackgroundJob]) -> Iterator[tuple[int, int]]:
    """Notes done and notes in all, again and again until the jobs have ended."""
    while True:
        now = list(jobs.all())
        yield sum(job.done_items for job in now), sum(job.total_items for job in now)
        if all(job.is_terminal for job in now):
            return
        time.sleep(POLL_SECONDS)


def add_user_arguments(parser: ArgumentParser) -> None:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", help="the e-mail address of one user")
    who.add_argument("--all-users", action="store_true")


def users(options: dict[str, Any]) -> QuerySet[User]:
    """Raises CommandError when there is no such user."""
    if options["all_users"]:
        return User.objects.order_by("pk")
    found = User.objects.filter(email=options["user"].lower())
    if not found.exists():
        raise CommandError(f"There is no user {options['user']}.")
    return found
