"""gunicorn's settings. The command line has precedence: `--bind 0.0.0.0:8000`."""

from __future__ import annotations

import logging.config
import os
import resource
from typing import Any

from gunicorn.glogging import Logger

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scribes.settings")

from django.conf import settings


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
timeout = 300
# Two checkouts would share the default one.
control_socket_disable = True
asgi_lifespan = "off"


def on_starting(server: Any) -> None:
    """Allow as many open files as the system permits: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
