"""`make demo`, run twice on data of its own."""

from __future__ import annotations

import re
import subprocess
from email import message_from_bytes
from pathlib import Path

from tests.helpers.processes import LONGEST_WAIT_SECONDS, MANAGE, left_over, own_environment


def demo(data: Path) -> str:
    """Run the demo; what it prints. No process may be left afterwards."""
    result = subprocess.run(
        [*MANAGE, "embedded", *MANAGE, "demo"],
        env=own_environment(data, WORKER_CONCURRENCY="1"),
        capture_output=True,
        text=True,
        timeout=LONGEST_WAIT_SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert left_over(data) == []
    return result.stdout


def test_demo_embeds_searches_and_reminds(tmp_path: Path):
    first = demo(tmp_path / "data")
    assert "Importing 150 Psalms" in first
    assert "Embedded 150 notes in" in first
    assert "notes/s" in first
    assert "Psalm 23" in first
    assert_reminder_mailed(first, tmp_path / "data" / "mail", 1)
    second = demo(tmp_path / "data")
    assert "The Psalms were imported by an earlier run." in second
    assert "Embedded 150 notes in" in second
    assert_reminder_mailed(second, tmp_path / "data" / "mail", 2)


def assert_reminder_mailed(output: str, folder: Path, mails: int) -> None:
    assert re.search(r"Reminder for Psalm \d+ sent by e-mail at", output)
    assert f"The mail is in {folder}" in output.replace("\n", "")
    found = [message_from_bytes(file.read_bytes()) for file in folder.glob("*.eml")]
    assert len(found) == mails
    assert {mail["To"] for mail in found} == {"demo@example.com"}
    assert all(mail["Subject"].startswith("Reminder: Psalm ") for mail in found)
