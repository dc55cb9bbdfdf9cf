"""The two ways to run a model: batches of token ids -> vectors.

openvino is several times as fast as torch, in bfloat16 where the CPU supports it (the cosine to
torch's vectors is above 0.9999), and loads in less than a second. It needs a converted copy of the
model: see notes.embeddings.preparation. torch runs the model as it is on every machine. Both are
imported only when a process embeds its first text. notes.embeddings.loading chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from celery import current_app
from django.conf import settings

if TYPE_CHECKING:
    from openvino import CompiledModel

Vectors = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """Texts that run through the network together. It may have rows of padding at its end."""

    ids: npt.NDArray[np.int64]
    """Token ids, [rows, tokens], padded to the same length."""
    mask: npt.NDArray[np.int64]
    """1 for a token, 0 for padding."""


class Engine(Protocol):
    name: str
    """As EMBEDDING_ENGINE names it."""
    precision: str
    """Of the matrix products: bf16 or f32."""

    def run(self, batches: Sequence[Batch], renew: Callable[[], None]) -> list[Vectors]:
        """One float32 [rows, dimension] for each batch. Calls `renew` before each batch."""


def thread_count() -> int:
    """Threads for the model in this process: the processes of a worker share the cores."""
    return max(1, settings.CORES // (current_app.conf.worker_concurrency or 1))


class OpenVINO:
    name = "openvino"

    def __init__(self, converted: Path) -> None:
        """Compile the network in this process. OpenVINO's cache for that is not used.

        Two processes must not write it at once, and with it a start takes only a quarter of a second
        less.
        """
        import openvino

        options = _options(thread_count())
        self._network: CompiledModel = openvino.compile_model(str(converted), "CPU", options)
        self._queue = openvino.AsyncInferQueue(self._network, thread_count())
        self.precision = self._network.get_property("INFERENCE_PRECISION_HINT").to_string()

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


class Torch:
    name = "torch"
    precision = "f32"

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
