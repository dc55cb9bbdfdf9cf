from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from scribes import embedded, mail_sink


class Command(BaseCommand):
    help = (
        "Run COMMAND with PostgreSQL, Valkey and a mail sink of this checkout's own, and stop them "
        "after it. A server that DATABASE_URL, REDIS_URL or EMAIL_URL names is used instead."
    )
    # The checks may want a database, which is not there yet.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND …")

    def handle(self, *args: Any, command: list[str], **options: Any) -> None:
        if not command or not shutil.which(command[0]):
            raise CommandError("Say which command to run, as in: manage.py embedded bash")
        # Until the command runs, these must unwind the with block: no server is left behind.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: sys.exit(128 + received))
        try:
            with embedded.running(
                settings.DATA_DIR,
                postgres=not settings.DATABASE_URL_IS_SET,
                valkey=not settings.REDIS_URL_IS_SET,
                mail=not settings.EMAIL_URL_IS_SET,
            ):
                status = run(command)
        except (embedded.AlreadyRunning, embedded.ServerFailed) as error:
            raise CommandError(str(error)) from error
        sys.exit(status)


def run(command: list[str]) -> int:
    """Run the command with all URLs in its environment; its exit status, as a shell gives it.

    Ctrl-C reaches the command from the terminal, so it is ignored here. SIGTERM is passed on, and
    so is the end of the terminal, as SIGTERM.
    """
    signal.signal(signal.SIGINT, lambda *_: None)
    urls = {"DATABASE_URL": settings.DATABASE_URL, "REDIS_URL": settings.REDIS_URL}
    if not settings.EMAIL_URL_IS_SET:
        urls["EMAIL_URL"] = mail_sink.url(settings.DATA_DIR)
    child = subprocess.Popen(command, env=os.environ | urls)

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGHUP, pass_on)
    status = child.wait()
    return status if status >= 0 else 128 - status
