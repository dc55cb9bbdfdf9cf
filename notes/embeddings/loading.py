"""Loads the engine that EMBEDDING_ENGINE names, once in a process and for each model.

`auto` means openvino, or torch while openvino cannot run the model. Such a process tries openvino
again after a delay that grows, so that it is not slow for the rest of its life.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from django.conf import settings

from notes.embeddings.engines import Batch, Engine, OpenVINO, Torch, Vectors, thread_count
from notes.embeddings.preparation import PreparationFailed, prepare

logger = logging.getLogger(__name__)

# A failing attempt takes seconds, and whoever embeds in this process waits for it.
RETRY_SECONDS = 60
# On the fallback, the delay doubles up to this.
MAX_RETRY_SECONDS = 3600

Renew = Callable[[], None]


class EngineUnavailable(Exception):
    """No engine can run the model; the message says why."""


class EngineLoader:
    """The engine of one model in this process. Only one thread at a time may call `run`."""

    def __init__(self, model: Path, version: str) -> None:
        self.model = model
        self.version = version
        self.loaded: Engine | None = None
        self._problem = ""
        self._attempts = 0
        self._next_attempt_at = 0.0
        self._passages = 0
        self._seconds = 0.0

    @property
    def fallback_reason(self) -> str:
        """Why torch runs the model although openvino was asked for; empty if that is not so."""
        return self._problem if self.loaded else ""

    def run(self, batches: Sequence[Batch], passages: int, renew: Renew) -> list[Vectors]:
        """The vectors of each batch; `passages` of their rows are not padding.

        Loads the engine first if that is due, and calls `renew` meanwhile, too. Raises
        EngineUnavailable, and what `renew` raises.
        """
        engine = self._engine(renew)
        started = time.monotonic()
        vectors = engine.run(batches, renew)
        self._seconds += time.monotonic() - started
        self._passages += passages
        return vectors

    def take_speed(self) -> float | None:
        """Passages per second of the engine's time since the last call; None if there were none."""
        passages, seconds = self._passages, self._seconds
        self._passages, self._seconds = 0, 0.0
        return passages / seconds if seconds else None

    def _engine(self, renew: Renew) -> Engine:
        if self._is_due():
            self._load(renew)
        if self.loaded is None:
            raise EngineUnavailable(self._problem)
        return self.loaded

    def _is_due(self) -> bool:
        is_wanted = self.loaded is None or bool(self._problem)
        return is_wanted and time.monotonic() >= self._next_attempt_at

    def _load(self, renew: Renew) -> None:
        try:
            self._use(self._preferred(renew))
            self._problem = ""
        except (PreparationFailed, EngineUnavailable) as error:
            self._problem = str(error)
            self._fall_back()
            self._schedule_next_attempt()

    def _preferred(self, renew: Renew) -> Engine:
        if settings.EMBEDDING_ENGINE == "torch":
            return _call(lambda: Torch(self.model))
        network = prepare(self.model, self.version, renew)
        return _call(lambda: OpenVINO(network))

    def _fall_back(self) -> None:
        """Load torch, if EMBEDDING_ENGINE allows it and it is not loaded yet."""
        if settings.EMBEDDING_ENGINE != "auto" or self.loaded:
            return
        logger.warning(
            "OpenVINO cannot run the model; using torch, which is slower: %s", self._problem
        )
        try:
            self._use(_call(lambda: Torch(self.model)))
        except EngineUnavailable as error:
            self._problem = str(error)

    def _schedule_next_attempt(self) -> None:
        """The delay does not grow without any engine: nothing can be embedded until one is loaded."""
        delay = RETRY_SECONDS
        if self.loaded:
            delay = min(RETRY_SECONDS << min(self._attempts, 10), MAX_RETRY_SECONDS)
            self._attempts += 1
        self._next_attempt_at = time.monotonic() + delay

    def _use(self, engine: Engine) -> None:
        self.loaded = engine
        IN_USE[self.version] = self
        threads = thread_count()
        logger.info("%s runs the model in %s, threads: %s", engine.name, engine.precision, threads)


IN_USE: WeakValueDictionary[str, EngineLoader] = WeakValueDictionary()
"""The loaders of this process that have an engine, by the version of their model."""


def _call(load: Callable[[], Engine]) -> Engine:
    """Raises EngineUnavailable for any error: the libraries share no class of errors."""
    try:
        return load()
    except Exception as error:
        raise EngineUnavailable(f"{type(error).__name__}: {error}") from error
