"""Token ids -> vectors: the two ways to run the model's network, chosen by EMBEDDING_ENGINE.

openvino runs the network several times as fast as torch, in bfloat16 where the CPU has it
(cosine to torch's vectors above 0.9999), and starts in under a second. It needs a converted copy
of the model, which is made once, in a process of its own, and kept in DATA_DIR. torch runs the
model as it is, everywhere. Neither is imported before the first text is embedded.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from celery import current_app
from django.conf import settings

if TYPE_CHECKING:
    from openvino import CompiledModel, Core

logger = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

CONVERT_TIMEOUT_SECONDS = 120


class Pack(NamedTuple):
    """Texts that go through the network together."""

    ids: npt.NDArray[np.int64]
    """[texts, tokens], padded to the longest or a little more, and with a few texts of padding"""
    mask: npt.NDArray[np.int64]
    """1 for a token, 0 for padding"""


class Engine(Protocol):
    def run(self, packs: Sequence[Pack], renew: Callable[[], None]) -> list[Vectors]:
        """One float32 [texts, dimension] for each pack. Calls `renew` before each of them."""


def load(model: Path, version: str) -> Engine:
    """The engine that EMBEDDING_ENGINE names. `auto` is openvino, or torch where that fails.

    Raises whatever the libraries raise when the model cannot be loaded.
    """
    engine = _load(model, version)
    logger.info("%s runs the model, threads: %s", type(engine).__name__, threads())
    return engine


def _load(model: Path, version: str) -> Engine:
    if settings.EMBEDDING_ENGINE == "torch":
        return Torch(model)
    try:
        return OpenVINO(converted(model, version))
    except Exception:
        if settings.EMBEDDING_ENGINE == "openvino":
            raise
        logger.warning("OpenVINO cannot run the model; torch does, slower", exc_info=True)
        return Torch(model)


def threads() -> int:
    """The worker's processes share the cores; more threads would only get in their way."""
    return max(1, settings.CORES // (current_app.conf.worker_concurrency or 1))


class OpenVINO:
    def __init__(self, converted: Path) -> None:
        import openvino

        core = openvino.Core()
        core.set_property({"CACHE_DIR": str(converted.parent / _processor(core))})
        options = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": str(threads()),
            "INFERENCE_NUM_THREADS": threads(),
            # Each process would bind its threads to the cores from the first on: two processes of
            # one thread each to the same core, while the other idles.
            "ENABLE_CPU_PINNING": False,
        }
        self._network: CompiledModel = core.compile_model(str(converted), "CPU", options)
        self._queue = openvino.AsyncInferQueue(self._network, threads())

    def run(self, packs: Sequence[Pack], renew: Callable[[], None]) -> list[Vectors]:
        done: dict[int, Vectors] = {}
        self._queue.set_callback(
            # A copy: the next pack is written to the same memory.
            lambda request, number: done.update({number: request.get_output_tensor().data.copy()})
        )
        try:
            for number, pack in enumerate(packs):
                renew()
                self._queue.start_async(list(pack), number)
        finally:
            self._queue.wait_all()
        return [done[number] for number in range(len(packs))]


def _processor(core: Core) -> str:
    """What is compiled for one kind is of no use to another. Virtual machines may hide its name, but
    not what it can do."""
    name = core.get_property("CPU", "FULL_DEVICE_NAME")
    skills = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return hashlib.sha256(f"{name} {skills}".encode()).hexdigest()[:12]


class Torch:
    def __init__(self, model: Path) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        torch.set_num_threads(threads())
        self._network = SentenceTransformer(str(model), device="cpu").eval()

    def run(self, packs: Sequence[Pack], renew: Callable[[], None]) -> list[Vectors]:
        return [self._run(pack, renew) for pack in packs]

    def _run(self, pack: Pack, renew: Callable[[], None]) -> Vectors:
        import torch

        renew()
        with torch.inference_mode():
            inputs = {
                "input_ids": torch.from_numpy(pack.ids),
                "attention_mask": torch.from_numpy(pack.mask),
            }
            vectors: Vectors = self._network(inputs)["sentence_embedding"].numpy()
        return vectors


def converted(model: Path, version: str) -> Path:
    """The model in OpenVINO's format: from DATA_DIR, or converted now, which takes some seconds.

    Processes that do so at once do no harm: the first one's is kept. Raises RuntimeError.
    """
    import openvino

    release = openvino.__version__.split("-")[0]
    kept = settings.DATA_DIR / "models" / f"{version}-openvino-{release}"
    if not (kept / "model.xml").exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        work = Path(mkdtemp(dir=kept.parent))
        try:
            _convert(model, work / "model.xml")
            work.rename(kept)
        except OSError:  # somebody else's is there by now
            if not kept.exists():
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return kept / "model.xml"


def _convert(model: Path, target: Path) -> None:
    """In a process of its own, so that this one never holds torch and a second copy of the model."""
    command = [sys.executable, "-m", "notes.convert", str(model), str(target)]
    ended = subprocess.run(
        command,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
        timeout=CONVERT_TIMEOUT_SECONDS,
    )
    if ended.returncode:
        raise RuntimeError(f"The model could not be converted: {ended.stderr[-2000:]}")
