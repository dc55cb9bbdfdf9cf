"""What is checked of a message in a queue before Celery gets it.

kombu and Celery expect messages of another Celery. Some of what is refused here would otherwise end
the worker.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from celery import current_app


def check(message: Any, *, is_task: bool) -> None:
    """Raise an exception, of any type, if a kombu message is not as Celery sends it."""
    if message.errors:
        raise message.errors[0][1]
    information = message.delivery_info
    for text in (message.delivery_tag, information["exchange"], information["routing_key"]):
        _require(isinstance(text, str), "its delivery tag, exchange or routing key is not text")
    if is_task:
        _check_headers(message.headers)
        _check_body(message)


def _check_headers(headers: dict[str, Any]) -> None:
    name = headers["task"]
    _require(isinstance(name, str) and name in current_app.tasks, f"the task {name!r} is unknown")
    _require(isinstance(headers["id"], str), "its id is not text")
    for time in (headers.get("eta"), headers.get("expires")):
        if time is not None:
            datetime.fromisoformat(time)
    for seconds in headers.get("timelimit") or ():
        _require(isinstance(seconds, int | float | None), "a time limit is not a number")
    for header in headers.keys() - {"timelimit"}:
        is_plain = isinstance(headers[header], str | int | float | None)
        _require(is_plain or not headers[header], f"the header {header!r} is not text or a number")
    # Scribes sends no stamps.
    _require(not headers.get("stamped_headers"), "it has stamps")


def _check_body(message: Any) -> None:
    message.accept = {"application/json"}
    arguments, keywords, options = message.decode()
    types = isinstance(arguments, list), isinstance(keywords, dict), isinstance(options, dict)
    _require(all(types), "its body is not [arguments, keywords, options]")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
