"""The README's curl lines, as typed."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from django.conf import settings

from tests.conftest import Web
from tests.processes import Process


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_curl_lines_work_as_typed(web: Web, worker: Process):
    readme = (settings.BASE_DIR / "README.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)
    assert len(blocks) == 1
    script = "set -euo pipefail\n" + blocks[0].replace("http://localhost:8000", web.url)
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    for part in (
        '"title":"Rest"',
        '"total":1',
        '"status":"completed"',
        "The job is complete: 1 of 1 notes done, 0 failed.",
        '"similarity_score":0.',
        '"coverage_percent":100.0',
        '"is_authenticated": false',
    ):
        assert part in result.stdout
    assert '"code"' not in result.stdout
