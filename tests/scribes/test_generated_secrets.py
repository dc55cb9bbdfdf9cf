"""What a checkout generates for itself: secrets, and the address of its mail sink."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

from django.conf import settings

from scribes.embedded.addresses import UNUSED_PORT, mail_folder, mail_url
from scribes.embedded.generated_secrets import secret
from tests.helpers.processes import LONGEST_WAIT_SECONDS


def test_secret_is_generated_once(tmp_path: Path):
    first = secret(tmp_path, "key")
    assert re.fullmatch(r"[\w-]{43}", first)
    assert secret(tmp_path, "key") == first
    assert secret(tmp_path, "other-key") != first


def test_secret_is_readable_by_its_owner_only(tmp_path: Path):
    secret(tmp_path / "data", "key")
    folder = tmp_path / "data" / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["key"]


def test_secret_is_the_same_in_processes_that_start_together(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path;"
        "from scribes.embedded.generated_secrets import secret;"
        "print(secret(Path(sys.argv[1]), 'key'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [
        subprocess.Popen(command, cwd=settings.BASE_DIR, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = {
        process.communicate(timeout=LONGEST_WAIT_SECONDS)[0].strip() for process in processes
    }
    assert printed == {secret(tmp_path, "key")}


def test_secret_that_exists_is_kept(tmp_path: Path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("chosen by a person")
    assert secret(tmp_path, "key") == "chosen by a person"


def test_mail_url_is_that_of_a_running_sink(tmp_path: Path):
    assert mail_url(tmp_path) == f"smtp://127.0.0.1:{UNUSED_PORT}"
    mail_folder(tmp_path).mkdir()
    (mail_folder(tmp_path) / "port").write_text("40123")
    assert mail_url(tmp_path) == "smtp://127.0.0.1:40123"
