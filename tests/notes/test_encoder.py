"""Texts -> vectors, with both engines."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from django.conf import settings as django_settings
from sentence_transformers import SentenceTransformer

from jobs.runner import enqueue
from notes.embeddings.encoder import Encoder, encoder
from notes.embeddings.regeneration import EmbeddingRegeneration
from scribes.models import User
from tests.helpers.factories import make_note
from tests.helpers.processes import last_line_of
from tests.helpers.samples import psalm
from tests.helpers.servers import worker_process

TEXTS = ["", "In the beginning", "was the Word " * 200, "λόγος", "🕊️ שָׁלוֹם", "x" * 5000]


@pytest.fixture(params=["openvino", "torch"])
def engine(request: pytest.FixtureRequest, settings) -> str:
    settings.EMBEDDING_ENGINE = request.param
    return str(request.param)


@pytest.fixture
def model(engine: str) -> Encoder:
    return Encoder("")


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """The vectors of sentence-transformers itself."""
    texts = TEXTS + [psalm(number)["content"] for number in range(1, 31)]
    return SentenceTransformer(str(encoder().path), device="cpu").encode(texts)


def test_embed_returns_vectors_of_sentence_transformers(
    engine: str, model: Encoder, expected: np.ndarray
):
    vectors = model.embed(TEXTS + [psalm(number)["content"] for number in range(1, 31)])
    assert vectors.dtype == np.float32
    assert vectors.shape == expected.shape
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert (vectors * expected).sum(axis=1).min() >= 0.9999
    if engine == "torch":
        assert vectors == pytest.approx(expected, abs=1e-5)


def test_embed_returns_nothing_for_no_texts(model: Encoder):
    assert model.embed([]).shape == (0, 384)


def test_embed_renews_often(model: Encoder):
    calls: list[None] = []
    model.embed(["The Lord is my shepherd. " * 40] * 20, lambda: calls.append(None))
    assert len(calls) >= 4


def test_embed_works_again_after_renew_raised(model: Encoder):
    def refuse() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        model.embed(["a", "b"], refuse)
    assert model.embed(["a"]).shape == (1, 384)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a thread's cores")
def test_openvino_pins_no_thread_to_a_core():
    """Two processes with pinned threads would share one core while another one is idle."""
    encoder().embed(["OpenVINO pins threads while it loads a model."])
    work = Thread(target=encoder().embed, args=(["In the beginning " * 60] * 50,))
    work.start()
    seen = set()
    while work.is_alive():
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # the thread has ended
                seen.add(frozenset(os.sched_getaffinity(int(thread.name))))
    assert seen == {frozenset(os.sched_getaffinity(0))}


@pytest.mark.django_db(transaction=True)
def test_processes_of_a_worker_share_the_cores(alice: User, tmp_path: Path):
    """With more threads than cores, they would only interrupt each other."""
    make_note(alice)
    enqueue(alice, EmbeddingRegeneration.name, {})
    with worker_process(tmp_path, "sharing", "--concurrency", "2") as worker:
        worker.await_output(f", threads: {max(1, django_settings.CORES // 2)}")


def embedding_process(code: str) -> str:
    """The last line that the code prints in a new process with one thread and a converted model."""
    encoder().embed(["In the beginning"])
    setup = "import django; django.setup(); from notes.embeddings.encoder import encoder\n"
    data, cores = str(django_settings.DATA_DIR), str(django_settings.CORES)
    return last_line_of(setup + code, DATA_DIR=data, WORKER_CONCURRENCY=cores)


def test_openvino_imports_no_torch():
    """torch would cost every worker ten seconds and half a gigabyte."""
    code = """
import sys
encoder().embed(["In the beginning"])
print(sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules)))
"""
    assert embedding_process(code) == "[]"


def test_openvino_memory_is_bounded_for_all_shapes():
    """OpenVINO keeps memory for each shape that it has seen. If each of 60 lengths, or of 60 numbers of
    texts, had its own shape, this would be about 40 MB."""
    code = """
import psutil
def used():
    return psutil.Process().memory_full_info().uss
encoder().embed(["word " * 120] * 8)
before = used()
for number in range(1, 61):
    encoder().embed(["word " * number])
    encoder().embed(["word"] * number)
print(used() - before)
"""
    assert int(embedding_process(code)) < 15_000_000
