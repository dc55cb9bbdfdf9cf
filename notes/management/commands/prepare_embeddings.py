from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from notes.embeddings.encoder import ModelUnavailable, encoder
from notes.embeddings.preparation import PreparationFailed


class Command(BaseCommand):
    help = (
        "Convert the embedding model for OpenVINO, if that is not done yet. Web and workers do so when "
        "they start. If it fails, this prints why."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        model = encoder(settings.EMBEDDING_MODEL)
        try:
            model.prepare()
        except (ModelUnavailable, PreparationFailed) as error:
            raise CommandError(str(error)) from error
        if options["verbosity"]:
            self.stdout.write(
                f"{model.name} is ready for EMBEDDING_ENGINE={settings.EMBEDDING_ENGINE}."
            )
