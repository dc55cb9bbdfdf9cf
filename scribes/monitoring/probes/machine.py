"""Does this machine have a mail server, and enough disk and memory?"""

from __future__ import annotations

import shutil
import smtplib

import psutil
from django.conf import settings
from django.core.mail import get_connection

from scribes.embedded.addresses import mail_url
from scribes.monitoring.probes.addresses import START_EMBEDDED
from scribes.monitoring.probes.registry import ProbeFailed, mask_passwords, register

CONNECT_SECONDS = 2
MEGABYTE = 2**20


@register("mail server")
def mail_server() -> str:
    location = f"{mask_passwords(settings.EMAIL_URL)} (EMAIL_URL)"
    mail = get_connection(timeout=CONNECT_SECONDS)
    try:
        mail.open()
        mail.close()
    except smtplib.SMTPAuthenticationError as error:
        fix = "correct EMAIL_URL: smtp+tls://user:password@host:587"
        problem = "The mail server rejects the user or the password"
        raise ProbeFailed(problem, location, fix) from error
    except (smtplib.SMTPException, OSError) as error:
        fix = "correct EMAIL_URL, or start the mail server"
        if mail_url(settings.DATA_DIR) == settings.EMAIL_URL:
            fix = f"set EMAIL_URL, or {START_EMBEDDED}"
        problem = f"The mail server cannot be reached: {type(error).__name__}: {error}"
        raise ProbeFailed(problem, location, fix) from error
    return f"answers at {location}"


@register("disk")
def disk() -> str:
    folder = settings.DATA_DIR
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free // MEGABYTE
    if free < settings.DISK_MIN_FREE_MB:
        raise ProbeFailed(
            f"Only {free} MB are free, less than {settings.DISK_MIN_FREE_MB} (DISK_MIN_FREE_MB)",
            str(folder),
            f"delete what is not needed: du -xh {folder} | sort -h | tail",
        )
    return f"{free:,} MB are free at {folder}"


@register("memory")
def memory() -> str:
    free = psutil.virtual_memory().available // MEGABYTE
    limit = settings.MEMORY_MIN_FREE_MB
    if free < limit:
        raise ProbeFailed(
            f"Only {free} MB of memory are free, less than {limit} (MEMORY_MIN_FREE_MB)",
            "this machine",
            "lower WORKER_CONCURRENCY; the largest processes: ps aux --sort=-rss | head",
        )
    return f"{free:,} MB are free"
