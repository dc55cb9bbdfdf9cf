"""Secrets that a checkout generates for itself, so that it is safe before anybody configures it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def secret(data: Path, name: str) -> str:
    """The secret `name`: 43 random URL-safe characters, generated at first use.

    It is kept in `data`/secrets with mode 0600, so that all processes of a checkout share it and it
    survives restarts. Machines do not share it: with several, set the environment variable.
    """
    path = data / "secrets" / name
    if not path.exists():
        _write_once(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write_once(path: Path, text: str) -> None:
    """Write the whole file or nothing. If several processes write at once, the first one wins."""
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
