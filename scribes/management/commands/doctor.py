from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from scribes.monitoring.probes.registry import PROBES, Report, run

LIMIT_SECONDS = 10
MARKS = {"ok": "✔", "fault": "✘", "skipped": "·"}


class Command(BaseCommand):
    help = (
        "Diagnose the installation and print a fix for each problem. The exit code is 1 if there is "
        "a problem."
    )
    # System checks may need the database, which is one of the things to diagnose.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        reports = run(PROBES, LIMIT_SECONDS)
        faults = sum(report.is_fault for report in reports)
        if options["json"]:
            self.stdout.write(json.dumps([report._asdict() for report in reports], indent=2))
        else:
            self.stdout.write("\n".join(map(report_text, reports)))
            self.stdout.write(f"\n{summary(faults)}")
        self.stdout.flush()
        sys.exit(1 if faults else 0)


def report_text(report: Report) -> str:
    """One line for a probe; for a fault, also where it is and how to fix it."""
    text = f"{MARKS[report.state]} {report.name:20} {report.message}"
    if report.is_fault:
        text += f"\n    where: {report.location}\n    fix:   {report.fix}"
    return text


def summary(faults: int) -> str:
    if not faults:
        return "No problems found."
    return "1 problem found." if faults == 1 else f"{faults} problems found."
