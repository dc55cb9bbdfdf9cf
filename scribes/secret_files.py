"""Secrets that a checkout makes for itself, so that it is safe before anybody configures it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def secret(data: Path, name: str) -> str:
    """The secret called `name`: 43 random URL-safe characters, made at first use.

    Kept in `data`/secrets with mode 0600, so all processes of one checkout share it and it
    survives restarts. Not shared between machines: there, set the environment variable.
    """
    path = data / "secrets" / name
    if not path.exists():
        _write_once(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write_once(path: Path, text: str) -> None:
    """Write the whole file or nothing; of several writers at once, the first one stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
