"""Flower's own configuration file: `celery -A scribes flower` reads it, as celery_app.py names it."""

from __future__ import annotations

import hashlib

from django.conf import settings

address = settings.FLOWER_ADDRESS
port = settings.FLOWER_PORT
basic_auth = [settings.FLOWER_BASIC_AUTH]
# Signed-in browsers stay signed in when Flower restarts.
cookie_secret = hashlib.sha256(b"flower" + settings.SECRET_KEY.encode()).hexdigest()

# What it has seen outlives it.
persistent = True
db = str(settings.DATA_DIR / "flower")
state_save_interval = 60_000  # ms
max_tasks = 20_000
purge_offline_workers = 600  # s

# The first two say which job and batch it is: see jobs.broker.send.
tasks_columns = "name,args,state,received,runtime,worker,uuid"
