"""Prepares the embedding model before a worker or a web process takes its first work."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import celeryd_after_setup
from django.conf import settings
from django.dispatch import receiver

from notes.embeddings.encoder import ModelUnavailable, encoder
from notes.embeddings.preparation import PreparationFailed
from scribes.startup import web_starting

logger = logging.getLogger(__name__)


# The worker has no pool yet. It does not load the model itself: that would not survive the fork.
@receiver(web_starting)
@celeryd_after_setup.connect
def prepare_default_model(**_: Any) -> None:
    """Wait until the default model is converted. Never raises: keyword search and all other work need
    no model, and the conversion is tried again with the first text."""
    try:
        encoder(settings.EMBEDDING_MODEL).prepare()
    except (ModelUnavailable, PreparationFailed) as error:
        logger.warning("The embedding model is not prepared: %s", error)
