"""gunicorn's settings. The command line has precedence: `--bind 0.0.0.0:8000`."""

from __future__ import annotations

import logging.config
import os
import resource
from typing import Any

from gunicorn.glogging import Logger

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scribes.settings")

from django.conf import settings

# A connection is an open file, and may have a request and a response in temporary files.
FILES_PER_CONNECTION = 3
OTHER_FILES = 1000


class SharedLog(Logger):  # type: ignore[misc] # it has no types
    """Log as all other processes do."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        logging.config.dictConfig(settings.LOGGING)


bind = f"127.0.0.1:{settings.WEB_PORT}"
workers = settings.WEB_PROCESSES
worker_class = "scribes.serving.worker.Worker"
worker_connections = settings.WEB_CONNECTIONS
logger_class = SharedLog
# Longer than the idle connections of proxies (nginx: 60 s). If the proxy closes first, no request is
# sent into a connection that is just being closed.
keepalive = 75
graceful_timeout = 30
# A process whose event loop hangs is replaced. At its first start it may wait for the embedding model.
# It must be longer than what the bridge gives to a request's body, which gunicorn would end with a 500.
timeout = 300
# A request that waits for a thread is dropped when its client leaves.
asgi_disconnect_grace_period = 0
# Two checkouts would share the default one.
control_socket_disable = True
asgi_lifespan = "off"


def on_starting(server: Any) -> None:
    """Raise the limit of open files, which is often 1024, as far as it is needed and allowed."""
    needed = OTHER_FILES + FILES_PER_CONNECTION * server.cfg.worker_connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
