"""Text that PostgreSQL can store."""

from __future__ import annotations


def strip_unstorable(text: str) -> str:
    """Write NUL and lone surrogates as escapes: PostgreSQL stores neither, and an exception's
    message may quote them."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
