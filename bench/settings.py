"""The project's settings, with queues that only this run uses and with the bare view."""

from __future__ import annotations

import os
import uuid

# In the environment, so that the processes that are started share them.
os.environ.setdefault("REDIS_KEY_PREFIX", f"scribes-bench-{uuid.uuid4()}:")
os.environ.setdefault("SECRET_KEY", "a secret of the benchmarks, long enough for HS256")

from scribes.settings import *  # noqa: F403

ROOT_URLCONF = "bench.peers.urls"
