from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from scribes.management.commands.doctor import LIMIT_SECONDS, report_text
from scribes.monitoring.probes.redis import claim_redis
from scribes.monitoring.probes.registry import PROBES, run


class Command(BaseCommand):
    help = (
        "Run preflight checks, then start the worker: `celery -A scribes worker`. If a critical check "
        "fails, print the problems and exit with code 1."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        help = "options for the worker, after a --: see celery worker --help"
        parser.add_argument("arguments", nargs="*", help=help)

    def handle(self, *args: Any, arguments: list[str], **options: Any) -> None:
        preflight = [probe for probe in PROBES if not probe.needs_running_processes]
        faults = [report for report in run(preflight, LIMIT_SECONDS) if report.is_fault]
        for report in faults:
            self.stderr.write(report_text(report))
        if {report.name for report in faults} & {p.name for p in preflight if p.critical}:
            self.stderr.write("\nThe worker was not started.")
            sys.exit(1)
        claim_redis()
        start_worker(arguments)


def start_worker(arguments: list[str]) -> None:
    """Replace this process by `celery -A scribes worker`; on Windows, run it as a child."""
    celery = [sys.executable, "-m", "celery", "-A", "scribes", "worker"]
    sys.stderr.flush()
    if sys.platform == "win32":
        # Ctrl-C reaches both processes, and the worker first finishes its batches.
        signal.signal(signal.SIGINT, lambda *_: None)
        # Celery's prefork pool needs fork, which Windows does not have.
        sys.exit(subprocess.Popen([*celery, "--pool=solo", *arguments]).wait())
    os.execv(celery[0], [*celery, *arguments])  # noqa: S606 signals must reach the worker itself
