"""Prepares the database and starts the processes of the Procfile on one machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.core.management import CommandError, call_command

from scribes.embedded.generated_secrets import secret
from scribes.models import User

ADMIN_EMAIL = "admin@example.com"


class Addresses(NamedTuple):
    web_port: int
    flower_port: int

    @property
    def web(self) -> str:
        return f"http://localhost:{self.web_port}"

    @property
    def flower(self) -> str:
        return f"http://localhost:{self.flower_port}"


def prepare() -> None:
    """Apply migrations, and create an administrator if there is none yet.

    Also converts the embedding model at the first start. Web and worker would do so, too, but
    whoever waits for them would not see why.
    """
    call_command("migrate", verbosity=0)
    try:
        call_command("prepare_embeddings", verbosity=0)
    except CommandError as error:
        sys.stderr.write(f"{error}\n")  # the processes start without it
    if not User.objects.filter(is_superuser=True).exists():
        User.objects.create_superuser(ADMIN_EMAIL, admin_password())


def admin_password() -> str:
    return secret(settings.DATA_DIR, "admin-password")


def honcho(addresses: Addresses) -> tuple[list[str], dict[str, str]]:
    """The command that runs every process of the Procfile, and its environment."""
    programs = Path(sys.executable).parent  # gunicorn and celery of this virtual environment
    environment = {
        "PUBLIC_URL": addresses.web,
        # The processes write to honcho, not to the terminal itself.
        **({"LOG_FORMAT": "text"} if sys.stdout.isatty() else {}),
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLOWER_PORT": str(addresses.flower_port),
    }
    # honcho must not read .env: the settings have done so, and the environment has precedence.
    options = ["-d", str(settings.BASE_DIR), "-e", os.devnull]
    port = ["-p", str(addresses.web_port)]
    return [sys.executable, "-m", "honcho", *options, "start", *port], environment
