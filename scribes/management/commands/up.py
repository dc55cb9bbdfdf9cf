from __future__ import annotations

import logging
import os
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from scribes.embedded import processes
from scribes.embedded.ports import is_in_use
from scribes.embedded.processes import ADMIN_EMAIL, Addresses
from scribes.embedded.supervisor import try_lock
from scribes.models import User
from scribes.monitoring.logging import is_text

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Apply migrations, print all addresses, and run the Procfile until Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        lock()
        addresses = Addresses(settings.WEB_PORT, settings.FLOWER_PORT)
        check_ports()
        processes.prepare()
        if is_text(settings.LOG_FORMAT):
            self.stdout.write(welcome(addresses))
            self.stdout.flush()
        else:
            log_welcome(addresses)
        command, environment = processes.honcho(addresses)
        # `manage.py embedded` passes the end of the terminal on as SIGTERM.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execve(command[0], command, environment)  # noqa: S606 Ctrl-C must reach it directly


def lock() -> None:
    """Raise CommandError if another `up` runs for the same data folder. The process that replaces this
    one keeps the lock."""
    descriptor = os.open(settings.DATA_DIR / "up.lock", os.O_RDWR | os.O_CREAT)
    if not try_lock(descriptor):
        raise CommandError(
            f"Scribes already runs in {settings.DATA_DIR}. Stop it first, or start a second one with"
            " another DATA_DIR, WEB_PORT and FLOWER_PORT."
        )
    os.set_inheritable(descriptor, True)


def check_ports() -> None:
    """Raise CommandError if another program has a port: a process would end later, and all with it."""
    for name, port in {"WEB_PORT": settings.WEB_PORT, "FLOWER_PORT": settings.FLOWER_PORT}.items():
        if is_in_use(port):
            raise CommandError(
                f"Another program uses port {port}, perhaps another `make run`. "
                f"Stop it, or choose another port: {name}={port + 1} make run"
            )


def welcome(addresses: Addresses) -> str:
    flower_user, _, flower_password = settings.FLOWER_BASIC_AUTH.partition(":")
    return f"""
Scribes is starting. Ctrl-C stops everything.

  API      {addresses.web}          documentation: {addresses.web}/docs
  Admin    {addresses.web}/admin/   {admin_sign_in()}
  Flower   {addresses.flower}          sign in: {flower_user} / {flower_password}
"""


def log_welcome(addresses: Addresses) -> None:
    """The same as one line of the log, without passwords."""
    secrets = str(settings.DATA_DIR / "secrets")
    fields = {"api": addresses.web, "flower": addresses.flower, "secrets": secrets}
    logger.info("Scribes is starting", extra=fields)


def admin_sign_in() -> str:
    """How to sign in. The password is shown only for the administrator that Scribes created."""
    admin = User.objects.filter(email=ADMIN_EMAIL).first()
    if admin and admin.check_password(processes.admin_password()):
        return f"sign in: {ADMIN_EMAIL} / {processes.admin_password()}"
    return "sign in with your administrator account, or create one: manage.py createsuperuser"
