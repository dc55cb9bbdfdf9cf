"""The entry point of web processes: `gunicorn -c python:scribes.serving.config scribes.asgi`."""

from __future__ import annotations

import sys

from django.conf import settings

from scribes.serving.bridge import Bridge
from scribes.wsgi import application as wsgi_application

# A thread that computes gives way to the others of its process this often. With Python's default of 5 ms,
# a request of 7 ms took 20 ms beside one that computes, since it waits after each of its queries.
SWITCH_SECONDS = 0.0005

sys.setswitchinterval(SWITCH_SECONDS)

application = Bridge(wsgi_application, settings.WEB_THREADS, without_thread={"/health/live"})
