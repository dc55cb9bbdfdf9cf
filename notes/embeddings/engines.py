"""The two ways to run a model, chosen by EMBEDDING_ENGINE: batches of token ids -> vectors.

openvino is several times as fast as torch, in bfloat16 where the CPU supports it (the cosine to
torch's vectors is above 0.9999), and loads in less than a second. It needs a converted copy of the
model, which is made once, in a separate process, and kept in DATA_DIR. torch runs the model as it is
on every machine. Both are imported only when a process embeds its first text.
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
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from celery import current_app
from django.conf import settings

if TYPE_CHECKING:
    from openvino import CompiledModel, Core

logger = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

CONVERT_TIMEOUT_SECONDS = 120


class Batch(NamedTuple):
    """Texts that run through the network together. It may have rows of padding at its end."""

    ids: npt.NDArray[np.int64]
    """Token ids, [rows, tokens], padded to the same length."""
    mask: npt.NDArray[np.int64]
    """1 for a token, 0 for padding."""


class Engine(Protocol):
    def run(self, batches: Sequence[Batch], renew: Callable[[], None]) -> list[Vectors]:
        """One float32 [rows, dimension] for each batch. Calls `renew` before each batch."""


def load(model: Path, version: str) -> Engine:
    """The engine that EMBEDDING_ENGINE names. `auto` is openvino, or torch if openvino fails.

    Raises what the libraries raise if the model cannot be loaded.
    """
    engine = _load(model, version)
    logger.info("%s runs the model, threads: %s", type(engine).__name__, thread_count())
    return engine


def _load(model: Path, version: str) -> Engine:
    if settings.EMBEDDING_ENGINE == "torch":
        return Torch(model)
    try:
        return OpenVINO(ensure_converted(model, version))
    except Exception:
        if settings.EMBEDDING_ENGINE == "openvino":
            raise
        logger.warning("OpenVINO cannot run the model; using torch, which is slower", exc_info=True)
        return Torch(model)


def thread_count() -> int:
    """Threads for the model in this process: the processes of a worker share the cores."""
    return max(1, settings.CORES // (current_app.conf.worker_concurrency or 1))


class OpenVINO:
    def __init__(self, converted: Path) -> None:
        import openvino

        core = openvino.Core()
        core.set_property({"CACHE_DIR": str(converted.parent / _cpu_fingerprint(core))})
        options = _options(thread_count())
        self._network: CompiledModel = core.compile_model(str(converted), "CPU", options)
        self._queue = openvino.AsyncInferQueue(self._network, thread_count())

    def run(self, batches: Sequence[Batch], renew: Callable[[], None]) -> list[Vectors]:
        results: dict[int, Vectors] = {}

        def store(request: Any, number: int) -> None:
            # A copy: the next batch overwrites the same memory.
            results[number] = request.get_output_tensor().data.copy()

        self._queue.set_callback(store)
        try:
            for number, batch in enumerate(batches):
                renew()
                self._queue.start_async(list(batch), number)
        finally:
            self._queue.wait_all()
        return [results[number] for number in range(len(batches))]


def _options(threads: int) -> dict[str, str | int | bool]:
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(threads),
        "INFERENCE_NUM_THREADS": threads,
        # Otherwise each process pins its threads to the first cores: two processes of one thread each
        # share one core while another one is idle.
        "ENABLE_CPU_PINNING": False,
    }


def _cpu_fingerprint(core: Core) -> str:
    """Identifies the kind of CPU: a network that was compiled for one kind cannot run on another.

    Virtual machines may hide the name of the CPU, but not its capabilities.
    """
    name = core.get_property("CPU", "FULL_DEVICE_NAME")
    capabilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return hashlib.sha256(f"{name} {capabilities}".encode()).hexdigest()[:12]


class Torch:
    def __init__(self, model: Path) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        torch.set_num_threads(thread_count())
        self._network = SentenceTransformer(str(model), device="cpu").eval()

    def run(self, batches: Sequence[Batch], renew: Callable[[], None]) -> list[Vectors]:
        return [self._run(batch, renew) for batch in batches]

    def _run(self, batch: Batch, renew: Callable[[], None]) -> Vectors:
        import torch

        renew()
        with torch.inference_mode():
            inputs = {
                "input_ids": torch.from_numpy(batch.ids),
                "attention_mask": torch.from_numpy(batch.mask),
            }
            vectors: Vectors = self._network(inputs)["sentence_embedding"].numpy()
        return vectors


def ensure_converted(model: Path, version: str) -> Path:
    """The path of the model in OpenVINO's format. Converts it first if needed, in some seconds.

    Several processes may do so at once; the copy that is finished first is kept. Raises RuntimeError
    if the conversion fails.
    """
    import openvino

    release = openvino.__version__.split("-")[0]
    folder = settings.DATA_DIR / "models" / f"{version}-openvino-{release}"
    if not (folder / "model.xml").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _convert_into(folder, model)
    return folder / "model.xml"


def _convert_into(folder: Path, model: Path) -> None:
    """Convert in a temporary folder, which is renamed when it is complete."""
    work = Path(mkdtemp(dir=folder.parent))
    try:
        _convert(model, work / "model.xml")
        work.rename(folder)
    except OSError:  # another process was faster
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _convert(model: Path, target: Path) -> None:
    """Convert in a separate process, so that this one never holds torch and a second copy."""
    command = [sys.executable, "-m", "notes.embeddings.convert", str(model), str(target)]
    ended = subprocess.run(
        command,
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
        timeout=CONVERT_TIMEOUT_SECONDS,
    )
    if ended.returncode:
        raise RuntimeError(f"Converting the model for OpenVINO failed: {ended.stderr[-2000:]}")
