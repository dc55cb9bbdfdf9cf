from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from scribes import checks, server_checks
from scribes.checks import CHECKS
from scribes.management.commands.doctor import LIMIT_SECONDS, line


class Command(BaseCommand):
    help = (
        "Look whether a worker can do its work here, and become one: `celery -A scribes worker`. "
        "If not, list what is wrong and exit with code 1."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        help = "For the worker, after a --: see celery worker --help"
        parser.add_argument("arguments", nargs="*", help=help)

    def handle(self, *args: Any, arguments: list[str], **options: Any) -> None:
        looked_at = [check for check in CHECKS if not check.running]
        reports = checks.run(looked_at, LIMIT_SECONDS)
        faults = [report for report in reports if report.is_fault]
        for report in faults:
            self.stderr.write(line(report))
        if {report.name for report in faults} & {check.name for check in looked_at if check.vital}:
            self.stderr.write("\nThe worker does not start.")
            sys.exit(1)
        server_checks.claim_redis()
        become(arguments)


def become(arguments: list[str]) -> None:
    """Become `celery -A scribes worker`; on Windows, which cannot, have it as the only child."""
    celery = [sys.executable, "-m", "celery", "-A", "scribes", "worker"]
    sys.stderr.flush()
    if sys.platform == "win32":
        # Ctrl-C reaches both; the worker first finishes what it is at.
        signal.signal(signal.SIGINT, lambda *_: None)
        # Celery's own pool needs fork.
        sys.exit(subprocess.Popen([*celery, "--pool=solo", *arguments]).wait())
    os.execv(celery[0], [*celery, *arguments])  # noqa: S606 signals must reach the worker itself
