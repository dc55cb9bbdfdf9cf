"""The version of Scribes: CHANGELOG.md says what changed in it."""

from __future__ import annotations

VERSION = "1.0.0rc2"
