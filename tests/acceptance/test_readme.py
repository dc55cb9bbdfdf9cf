"""What README.md shows: its curl lines are run as typed, and the output of the demo is the demo's."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from django.conf import settings

from tests.helpers.processes import LONGEST_WAIT_SECONDS, Process
from tests.helpers.servers import Web

README = (settings.BASE_DIR / "README.md").read_text()
# What differs from run to run: addresses, numbers, titles, paths and progress bars.
VARIES = re.compile(r"https?://\S+|Psalm \d+|/\S+|[\d.,:TZ%-]*\d[\d.,:TZ%-]*|━+|…")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_readme_curl_lines_work_as_typed(web: Web, worker: Process):
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 1
    script = "set -euo pipefail\n" + blocks[0].replace("http://localhost:8000", web.url)
    result = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=LONGEST_WAIT_SECONDS
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for part in (
        '"title":"Rest"',
        '"total":1',
        '"status":"completed"',
        "The job is complete: 1 of 1 notes done, 0 failed.",
        '"similarity_score": 0.',
        '"matched_by": "semantic"',
        '"coverage_percent":100.0',
        '"is_authenticated": false',
    ):
        assert part in result.stdout
    assert '"code"' not in result.stdout


def test_readme_shows_lines_that_the_demo_prints():
    """tests/acceptance/test_demo.py runs the demo. Search results start with two spaces."""
    code = (settings.BASE_DIR / "scribes/management/commands/demo.py").read_text()
    printed = re.sub(r"\[/?\w*\]", "", code)  # rich's markup
    (shown,) = re.findall(r"```console\n\$ make demo\n(.*?)```", README, re.DOTALL)
    lines = [line for line in shown.splitlines() if not line.startswith("  ")]
    for line in lines:
        for part in VARIES.split(line):
            assert part.strip() in printed, line
    assert len(lines) > 7
