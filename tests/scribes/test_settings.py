"""The environment variables: .env.example documents what the settings read, and nothing else."""

from __future__ import annotations

import re

import pytest
from django.conf import settings
from django.test import override_settings

from celery_app import configuration


def test_env_example_lists_the_variables_of_the_settings():
    code = (settings.BASE_DIR / "scribes" / "settings.py").read_text()
    example = (settings.BASE_DIR / ".env.example").read_text()
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', code))
    documented = set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE))
    assert read == documented
    assert len(read) > 15


def test_only_the_settings_read_the_environment():
    """The one exception is PATH, which is not a setting of Scribes."""
    folders = ("scribes", "jobs", "notes", "reminders")
    files = [file for folder in folders for file in (settings.BASE_DIR / folder).rglob("*.py")]
    files += settings.BASE_DIR.glob("*.py")
    reading = re.compile(r'os\.(?:getenv\(|environ(?:\.get\(|\[))["\'](\w+)["\'](?!\] = )')
    found = {(file.name, name) for file in files for name in reading.findall(file.read_text())}
    assert found == {("processes.py", "PATH")}


def test_env_example_has_the_defaults_of_the_settings():
    code = (settings.BASE_DIR / "scribes" / "settings.py").read_text()
    example = (settings.BASE_DIR / ".env.example").read_text()
    defaults = dict(re.findall(r'env\.int\("([A-Z_]+)", default=(\d+)\)', code))
    documented = dict(re.findall(r"^([A-Z_]+)=(\d+)$", example, re.MULTILINE))
    assert documented == defaults
    assert defaults["JOB_TIMEOUT_SECONDS"] == "3600"


@pytest.mark.parametrize(
    ("scheme", "checked"), [("rediss", {"ssl_cert_reqs": "required"}), ("redis", False)]
)
def test_redis_over_tls_must_show_a_valid_certificate(scheme: str, checked: object):
    with override_settings(REDIS_URL=f"{scheme}://redis.example.com:6379/0"):
        assert configuration()["broker_use_ssl"] == checked
