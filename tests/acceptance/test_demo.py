"""`make demo`, as it is typed: twice, with data of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.processes import MANAGE, left_over, own_environment


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


def test_the_demo_embeds_the_psalms_and_finds_them_by_meaning(tmp_path: Path):
    first = demo(tmp_path / "data")
    assert "Importing 150 Psalms" in first
    assert "Embedded 150 notes in" in first
    assert "notes/s" in first
    assert "Psalm 23" in first
    second = demo(tmp_path / "data")
    assert "there already" in second
    assert "Embedded 150 notes in" in second
