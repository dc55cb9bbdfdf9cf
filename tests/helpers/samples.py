from __future__ import annotations

from scribes.embedded.sample_texts import chapter_verses, psalm

__all__ = ["chapter_verses", "psalm"]
