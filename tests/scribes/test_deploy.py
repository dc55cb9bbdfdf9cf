"""The files that run Scribes as services: systemd units, docker-compose.yml, Dockerfile, Procfile."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

ROOT = settings.BASE_DIR
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


def without_paths(command: str) -> list[str]:
    """The words of a command, without the program's folder and the address that it binds."""
    words = shlex.split(re.sub(r"--bind \S+", "", command))
    return [Path(words[0]).name, *words[1:]]


def procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {
        name: without_paths(command) for name, command in (line.split(": ", 1) for line in lines)
    }


def unit(name: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(ROOT / "deploy" / "systemd" / f"scribes-{name}.service")
    return parser["Service"]


def compose() -> dict[str, Any]:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return dict(services)


def test_deploy_files_run_the_commands_of_the_procfile():
    expected = procfile()
    assert set(expected) == {"web", "worker", "beat", "flower"}
    for name, command in expected.items():
        assert without_paths(unit(name)["ExecStart"]) == command
        assert without_paths(compose()[name]["command"]) == command
    (default,) = re.findall(r"^CMD (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert without_paths(" ".join(yaml.safe_load(default))) == expected["web"]


def test_worker_has_time_to_finish_its_batch_when_stopped():
    limit = settings.TASK_TIME_LIMIT_SECONDS
    assert int(unit("worker")["TimeoutStopSec"]) > limit
    assert int(compose()["worker"]["stop_grace_period"].rstrip("s")) > limit
    assert unit("worker")["KillMode"] == "mixed"


def test_deploy_files_set_only_variables_of_scribes():
    known = settings.ENVIRONMENT_NAMES
    for service in ("web", "worker", "beat", "flower"):
        assert set(compose()[service]["environment"]) <= known
        words = unit(service)["Environment"].split()
        assert {word.split("=")[0] for word in words} <= known


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path):
    """With the programs of this checkout, since systemd checks that they exist."""
    programs = Path(sys.executable).parent
    for file in UNITS:
        text = file.read_text().replace("/srv/scribes/.venv/bin", str(programs))
        (tmp_path / file.name).write_text(text.replace("/srv/scribes", str(ROOT)))
    files = [str(tmp_path / file.name) for file in UNITS]
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True
    )
    ours = [line for line in result.stderr.splitlines() if "scribes-" in line]
    assert ours == [], result.stderr
    assert result.returncode == 0, result.stderr
