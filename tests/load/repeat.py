"""A client without Django, for a process of its own."""

from __future__ import annotations

from typing import Any

import requests


def repeat(method: str, url: str, headers: dict[str, str], body: Any) -> None:
    """Send this request again and again."""
    session = requests.Session()
    session.headers.update(headers)
    while True:
        session.request(method, url, json=body, timeout=300)
