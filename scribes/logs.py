"""What a line of the log looks like, and what never stands in one.

The code logs with Python's own logging; structlog renders it: a line for people on a terminal, an
object of JSON a line anywhere else. What is bound with `about` stands on each line.

django-structlog is not used: it logs every path, and some of ours are secrets.
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

# --- What never stands in a log -------------------------------------------------------------

SECRETS = (
    # The password of an address, and the path of one: webhooks have their secret there.
    (r"(://)[^/@\s]*:[^/@\s]*@", r"\1***@"),
    (r"(https?://[^/\s\"'<>]+)/[^\s\"'<>]*", r"\1/***"),
    (r"(with url: )\S+", r"\1***"),
    (r"([?&]password=)[^&\s]*", r"\1***"),
    # What PostgreSQL quotes of a row, such as a note's text.
    (r"(?s)(DETAIL: ).*?(?=\n[A-Z]+: |\Z)", r"\1***"),
    (r"(?i)(bearer )\S+", r"\1***"),
    (r"\beyJ[\w-]+\.[\w-]+\.[\w-]+", "***"),
    # The feed's address and the links in mails are keys.
    (r"(/reminders/(?:feed|links)/)[\w:-]+", r"\1***"),
    # A worker's name looks like an address, and is none.
    (r"(?<![\w.+-])(?!celery@)[\w.+-]+@[\w-]+(?:\.[\w-]+)+", "***@***"),
)
_SECRETS = [(re.compile(pattern), replacement) for pattern, replacement in SECRETS]


def discreet(text: str) -> str:
    """Without passwords, tokens, e-mail addresses and quoted rows."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _discreet(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Python's own messages and tracebacks, too: what an exception says was written elsewhere."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = discreet(value)
    return event


# --- What a line looks like -----------------------------------------------------------------

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    _discreet,
]


def formatter(style: str) -> structlog.stdlib.ProcessorFormatter:
    """`style` is text, json or auto: text where a person reads it."""
    text = style == "text" or (style == "auto" and sys.stdout.isatty())
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _line if text else structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )


def _line(logger: WrappedLogger, method: str, event: EventDict) -> str:
    time, level = event.pop("timestamp"), event.pop("level").upper()
    name, message = event.pop("logger"), event.pop("event")
    trace = event.pop("exception", None)
    rest = "".join(f" {key}={value}" for key, value in event.items())
    return f"{time} {level} {name}: {message}{rest}" + (f"\n{trace}" if trace else "")


# --- What a line is about -------------------------------------------------------------------


def about(**values: Any) -> AbstractContextManager[None]:
    """What is logged inside of the with block says these; those that are empty are left out."""
    return bound_contextvars(**{key: str(value) for key, value in values.items() if value})


def request_id() -> str:
    """Of the request that is being answered, or that the present work was asked for by; or empty."""
    return str(get_contextvars().get("request_id", ""))


def name_requests(get_response: GetResponse) -> GetResponse:
    """Middleware: each request gets an id, which its answer tells in X-Request-ID."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        name = str(uuid4())
        with about(request_id=name):
            response = get_response(request)
        response.headers["X-Request-ID"] = name
        return response

    return middleware
