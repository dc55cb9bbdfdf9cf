from __future__ import annotations

from django.apps import AppConfig


class NotesConfig(AppConfig):
    name = "notes"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the job types, metrics, panels, probes and signal handlers of this app.

        Their modules import models, so they cannot be imported before the apps are loaded.
        """
        import notes.metrics
        import notes.panels
        import notes.probes
        import notes.startup  # noqa: F401 importing these modules registers what is in them
        from jobs.job_types import register
        from notes.embeddings.regeneration import EmbeddingRegeneration, EmbeddingUpdate

        register(EmbeddingRegeneration())
        register(EmbeddingUpdate())
