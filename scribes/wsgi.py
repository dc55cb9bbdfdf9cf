"""The WSGI entry point: `gunicorn scribes.wsgi`."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterable
from typing import Any

from django.core.wsgi import get_wsgi_application

from scribes.monitoring import prometheus_multiprocess
from scribes.startup import web_starting

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scribes.settings")

prometheus_multiprocess.enable()
_django = get_wsgi_application()
web_starting.send(sender=None)

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
