"""Flower's configuration file. celery_app.py names it, so `celery -A scribes flower` reads it."""

from __future__ import annotations

import hashlib

from django.conf import settings

address = settings.FLOWER_ADDRESS
port = settings.FLOWER_PORT
basic_auth = [settings.FLOWER_BASIC_AUTH]
# With a fixed secret, browsers stay signed in when Flower restarts.
cookie_secret = hashlib.sha256(b"flower" + settings.SECRET_KEY.encode()).hexdigest()

# Flower keeps its history when it restarts.
persistent = True
db = str(settings.DATA_DIR / "flower")
state_save_interval = 60_000  # ms
max_tasks = 20_000
purge_offline_workers = 600  # s

# The name and the arguments say which job and batch it is: see scribes.messaging.broker.send.
tasks_columns = "name,args,state,received,runtime,worker,uuid"
