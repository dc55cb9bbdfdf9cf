"""The WSGI entry point: `gunicorn scribes.wsgi`."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connections

from scribes.monitoring import prometheus_multiprocess
from scribes.startup import web_starting

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scribes.settings")

prometheus_multiprocess.enable()
_django = get_wsgi_application()
web_starting.send(sender=None)


def limit_statements() -> None:
    """Let PostgreSQL end statements of web processes after WEB_STATEMENT_TIMEOUT_SECONDS.

    Only here: planning a job or a backup may take longer.
    """
    options = connections.settings["default"]["OPTIONS"]
    limit = f"-c statement_timeout={settings.WEB_STATEMENT_TIMEOUT_SECONDS}s"
    options["options"] = f"{options.get('options', '')} {limit}"


limit_statements()

# Almost everything that a request allocates is freed without the garbage collector, which by default
# looks for cycles after every 700 objects: 6 % of the time of a page of jobs.
gc.set_threshold(20_000)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Treat every request as UTF-8, whatever charset it claims.

    Django decodes the query string with that charset before its error handling begins, so a charset
    such as rot13 would end the request without an answer.
    """
    if claimed := environ.get("CONTENT_TYPE"):
        environ["CONTENT_TYPE"] = re.sub(r"(?i);\s*charset\s*=[^;]*", "", claimed)
    return _django(environ, start_response)
