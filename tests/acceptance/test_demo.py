"""`make demo`, as it is typed: twice, with data of its own."""

from __future__ import annotations

import subprocess
from email import message_from_bytes
from pathlib import Path

from tests.helpers.processes import MANAGE, left_over, own_environment


def demo(data: Path) -> str:
    result = subprocess.run(
        [*MANAGE, "embedded", *MANAGE, "demo"],
        env=own_environment(data, WORKER_CONCURRENCY="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert left_over(data) == []
    return result.stdout


def test_the_demo_embeds_the_psalms_finds_them_by_meaning_and_reminds_of_one(tmp_path: Path):
    first = demo(tmp_path / "data")
    assert "Importing 150 Psalms" in first
    assert "Embedded 150 notes in" in first
    assert "notes/s" in first
    assert "Psalm 23" in first
    assert_reminded(first, tmp_path / "data" / "mail", 1)
    second = demo(tmp_path / "data")
    assert "there already" in second
    assert "Embedded 150 notes in" in second
    assert_reminded(second, tmp_path / "data" / "mail", 2)


def assert_reminded(output: str, folder: Path, mails: int) -> None:
    assert "Reminded of Psalm" in output
    assert f"The mail is in {folder}" in output.replace("\n", "")
    found = [message_from_bytes(file.read_bytes()) for file in folder.glob("*.eml")]
    assert len(found) == mails
    assert {mail["To"] for mail in found} == {"demo@example.com"}
    assert all(mail["Subject"].startswith("Reminder: Psalm ") for mail in found)
