from __future__ import annotations

import os

from django.conf import settings

from scribes.embedded.addresses import database_url, redis_url

START_EMBEDDED = "make run, or: manage.py embedded COMMAND"


def is_embedded(url: str) -> bool:
    """Whether this is the address of an embedded server. There are none on Windows."""
    data = settings.DATA_DIR
    return os.name == "posix" and url in (database_url(data), redis_url(data))
