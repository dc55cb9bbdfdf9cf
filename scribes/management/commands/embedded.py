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

from scribes.embedded import supervisor
from scribes.embedded.addresses import mail_url
from scribes.embedded.server_process import ServerFailed


class Command(BaseCommand):
    help = (
        "Run COMMAND with a PostgreSQL, a Valkey and a mail sink of this checkout. If they already run, as "
        "with `make run` in another terminal, it uses those; otherwise they are stopped afterwards. If "
        "DATABASE_URL, REDIS_URL or EMAIL_URL is set, that server is used instead."
    )
    # System checks may need the database, which does not run yet.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND …")

    def handle(self, *args: Any, command: list[str], **options: Any) -> None:
        if not command or not shutil.which(command[0]):
            raise CommandError("Name a command to run, as in: manage.py embedded bash")
        # Until the command runs, these signals must leave the with block: no server may stay behind.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: sys.exit(128 + received))
        try:
            with supervisor.shared(
                settings.DATA_DIR,
                with_postgres=not settings.DATABASE_URL_IS_SET,
                with_valkey=not settings.REDIS_URL_IS_SET,
                with_mail=not settings.EMAIL_URL_IS_SET,
            ):
                status = run(command)
        except ServerFailed as error:
            raise CommandError(str(error)) from error
        sys.exit(status)


def run(command: list[str]) -> int:
    """Run the command with all URLs in its environment; its exit status, as a shell gives it.

    Ctrl-C reaches the command from the terminal, so it is ignored here. SIGTERM is passed on, and a
    closed terminal (SIGHUP) is passed on as SIGTERM.
    """
    signal.signal(signal.SIGINT, lambda *_: None)
    urls = {"DATABASE_URL": settings.DATABASE_URL, "REDIS_URL": settings.REDIS_URL}
    if not settings.EMAIL_URL_IS_SET:
        urls["EMAIL_URL"] = mail_url(settings.DATA_DIR)
    child = subprocess.Popen(command, env=os.environ | urls)

    def pass_on(number: int, frame: FrameType | None) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGHUP, pass_on)
    status = child.wait()
    return status if status >= 0 else 128 - status
