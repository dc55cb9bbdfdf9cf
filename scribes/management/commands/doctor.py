from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from scribes import checks
from scribes.checks import CHECKS, Report

LIMIT_SECONDS = 10
MARKS = {"ok": "✔", "fault": "✘", "skipped": "·"}


class Command(BaseCommand):
    help = "Say what is wrong with this Scribes, where, and how to mend it. Exit code 1: a fault."
    # They may want a database, which is what we are to look at.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="For programs to read.")

    def handle(self, *args: Any, **options: Any) -> None:
        reports = checks.run(CHECKS, LIMIT_SECONDS)
        faults = [report for report in reports if report.is_fault]
        if options["json"]:
            self.stdout.write(json.dumps([report._asdict() for report in reports], indent=2))
        else:
            self.stdout.write("\n".join(map(line, reports)))
            faults_found = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
            self.stdout.write(f"\n{faults_found if faults else 'Everything is well.'}")
        self.stdout.flush()
        sys.exit(1 if faults else 0)


def line(report: Report) -> str:
    """For people: what it is about, and under a fault where that is and what mends it."""
    text = f"{MARKS[report.state]} {report.name:20} {report.what}"
    if report.is_fault:
        text += f"\n    where: {report.where}\n    mend:  {report.mend}"
    return text
