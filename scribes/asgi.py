"""The entry point of web processes: `gunicorn -c python:scribes.serving.config scribes.asgi`."""

from __future__ import annotations

from django.conf import settings

from scribes.serving.bridge import Bridge
from scribes.wsgi import application as wsgi_application

application = Bridge(wsgi_application, settings.WEB_THREADS, without_thread={"/health/live"})
