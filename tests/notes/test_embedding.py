"""Texts -> vectors, by either engine."""

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
from notes import engines
from notes.embedding import Encoder, encoder
from notes.indexing import EmbeddingRegeneration
from notes.models import Note
from scribes.management.commands.demo import psalm
from scribes.models import User
from tests.conftest import worker_process
from tests.processes import last_line_of

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
    """Of sentence-transformers itself."""
    texts = TEXTS + [psalm(number)["content"] for number in range(1, 31)]
    return SentenceTransformer(str(encoder().path), device="cpu").encode(texts)


def test_vectors_are_those_of_sentence_transformers(
    engine: str, model: Encoder, expected: np.ndarray
):
    vectors = model.embed(TEXTS + [psalm(number)["content"] for number in range(1, 31)])
    assert vectors.dtype == np.float32
    assert vectors.shape == expected.shape
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert (vectors * expected).sum(axis=1).min() >= 0.9999
    if engine == "torch":
        assert vectors == pytest.approx(expected, abs=1e-5)


def test_no_texts_no_vectors(model: Encoder):
    assert model.embed([]).shape == (0, 384)


def test_says_often_that_the_work_goes_on(model: Encoder):
    calls: list[None] = []
    model.embed(["The Lord is my shepherd. " * 40] * 20, lambda: calls.append(None))
    assert len(calls) >= 4


def test_what_renew_raises_stops_the_work_and_leaves_the_engine_usable(model: Encoder):
    def refuse() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        model.embed(["a", "b"], refuse)
    assert model.embed(["a"]).shape == (1, 384)


def test_falls_back_to_torch(settings, tmp_path, caplog: pytest.LogCaptureFixture):
    settings.EMBEDDING_ENGINE = "auto"
    settings.DATA_DIR = tmp_path / "file"
    settings.DATA_DIR.touch()  # nothing can be kept here
    engine = engines.load(encoder().path, encoder().version)
    assert isinstance(engine, engines.Torch)
    assert "torch does, slower" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_no_thread_is_bound_to_a_core():
    """Two processes that bind theirs bind them to the same core, and the other idles."""
    encoder().embed(["OpenVINO binds threads while it loads a model."])
    work = Thread(target=encoder().embed, args=(["In the beginning " * 60] * 50,))
    work.start()
    seen = set()
    while work.is_alive():
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended
                seen.add(frozenset(os.sched_getaffinity(int(thread.name))))
    assert seen == {frozenset(os.sched_getaffinity(0))}


@pytest.mark.django_db(transaction=True)
def test_a_workers_processes_share_the_cores(alice: User, tmp_path: Path):
    """Two of a core's threads for each core would only get in each other's way."""
    Note.objects.create(user=alice, title="Rest", content="The Lord is my shepherd.")
    enqueue(alice, EmbeddingRegeneration.name, {})
    with worker_process(tmp_path, "sharing", "--concurrency", "2") as worker:
        worker.await_output(f"runs the model, threads: {max(1, django_settings.CORES // 2)}")


def embedding_elsewhere(code: str) -> str:
    """The last line that this prints. One thread runs the model, whose converted copy is there."""
    encoder().embed(["In the beginning"])
    begin = "import django; django.setup(); from notes.embedding import encoder\n"
    data, cores = str(django_settings.DATA_DIR), str(django_settings.CORES)
    return last_line_of(begin + code, DATA_DIR=data, WORKER_CONCURRENCY=cores)


def test_embedding_needs_no_torch():
    """It would cost every worker ten seconds and half a gigabyte."""
    code = """
import sys
encoder().embed(["In the beginning"])
print(sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules)))
"""
    assert embedding_elsewhere(code) == "[]"


def test_texts_of_all_lengths_and_numbers_leave_little_behind():
    """OpenVINO keeps memory for each shape that it met. With 60 lengths, or 60 numbers of texts, as
    shapes of their own, it would be some 40 MB for each."""
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
    assert int(embedding_elsewhere(code)) < 15_000_000
