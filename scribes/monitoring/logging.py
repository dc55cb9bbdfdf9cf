"""The format of log lines, the context that they carry, and the secrets that they must not contain.

The code logs with Python's own logging, and structlog renders it: text on a terminal, one JSON object
per line elsewhere. What `log_context` binds is on each line.

django-structlog is not used: docs/decisions/0017 says why.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import uuid4

import structlog
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from structlog.contextvars import bound_contextvars, get_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

GetResponse = Callable[[HttpRequest], HttpResponseBase]

# --- Redaction ------------------------------------------------------------------------------

SECRETS = (
    # The password in a URL, and the path of a URL: webhooks have their secret there.
    (r"(://)[^/@\s]*:[^/@\s]*@", r"\1***@"),
    (r"(https?://[^/\s\"'<>]+)/[^\s\"'<>]*", r"\1/***"),
    (r"(with url: )\S+", r"\1***"),
    (r"([?&]password=)[^&\s]*", r"\1***"),
    # What PostgreSQL quotes of a row, such as a note's text.
    (r"(?s)(DETAIL: ).*?(?=\n[A-Z]+: |\Z)", r"\1***"),
    (r"(?i)(bearer )\S+", r"\1***"),
    (r"\beyJ[\w-]+\.[\w-]+\.[\w-]+", "***"),
    # Whoever knows the address of a feed, or a link in a mail, can use it.
    (r"(/reminders/(?:feed|links)/)[\w:-]+", r"\1***"),
    # E-mail addresses. A worker's name only looks like one.
    (r"(?<![\w.+-])(?!celery@)[\w.+-]+@[\w-]+(?:\.[\w-]+)+", "***@***"),
)
_SECRETS = [(re.compile(pattern), replacement) for pattern, replacement in SECRETS]


def redact(text: str) -> str:
    """Replace passwords, tokens, e-mail addresses and quoted rows by stars."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _redact_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Redact messages and tracebacks, too: libraries write what an exception says."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
    return event


# --- Format ---------------------------------------------------------------------------------

# The fields that a line may have besides its context: `logger.info(…, extra={"broker": …})`.
LOG_FIELDS = (
    *("pool", "concurrency", "time_limit_seconds", "queues", "broker", "tasks"),  # of a worker
    *("api", "flower", "secrets"),  # of `manage.py up`
)

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.ExtraAdder(LOG_FIELDS),
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _redact_event,
]


def is_text(style: str) -> bool:
    """`style` is text, json or auto: text on a terminal, JSON elsewhere."""
    return style == "text" or (style == "auto" and sys.stdout.isatty())


def formatter(style: str) -> structlog.stdlib.ProcessorFormatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _text_line if is_text(style) else structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def _text_line(logger: WrappedLogger, method: str, event: EventDict) -> str:
    time, level = event.pop("timestamp"), event.pop("level").upper()
    name, message = event.pop("logger"), event.pop("event")
    trace = event.pop("exception", None)
    context = "".join(f" {key}={_text(value)}" for key, value in event.items())
    return f"{time} {level} {name}: {message}{context}" + (f"\n{trace}" if trace else "")


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


# --- Context --------------------------------------------------------------------------------


def log_context(**values: Any) -> AbstractContextManager[None]:
    """Add these values to each line that is logged inside the with block. Empty ones are left out."""
    return bound_contextvars(**{key: str(value) for key, value in values.items() if value})


def current_request_id() -> str:
    """The id of the request that is being answered, or that led to the work in progress; or empty."""
    return str(get_contextvars().get("request_id", ""))


def request_id(get_response: GetResponse) -> GetResponse:
    """Middleware: give each request an id, which the response has in X-Request-ID."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        name = str(uuid4())
        with log_context(request_id=name):
            response = get_response(request)
        response.headers["X-Request-ID"] = name
        return response

    return middleware
