from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def no_model(tmp_path: Path, settings) -> None:
    """The default model is missing."""
    settings.EMBEDDING_MODEL = str(tmp_path / "nothing")
