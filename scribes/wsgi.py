"""The WSGI entry point: `gunicorn scribes.wsgi`."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scribes.settings")

application = get_wsgi_application()
