"""Flower's own configuration file: `celery -A scribes flower` reads it from this folder."""

from __future__ import annotations

import hashlib

from django.conf import settings

address = settings.FLOWER_ADDRESS
port = settings.FLOWER_PORT
basic_auth = [settings.FLOWER_BASIC_AUTH]
# Signed-in browsers stay signed in when Flower restarts.
cookie_secret = hashlib.sha256(b"flower" + settings.SECRET_KEY.encode()).hexdigest()
