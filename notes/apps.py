from __future__ import annotations

from django.apps import AppConfig


class NotesConfig(AppConfig):
    name = "notes"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Tell jobs, which knows nothing of notes, how notes are worked on."""
        import notes.checks
        import notes.panels  # noqa: F401 registers them, too
        from jobs.runner import register
        from notes.indexing import EmbeddingRegeneration, EmbeddingUpdate

        register(EmbeddingRegeneration())
        register(EmbeddingUpdate())
