"""The engine of each process: one conversion for all, retries, and what operators see of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from django.conf import settings as django_settings
from django.db.models.functions import Now
from filelock import FileLock

from notes.embeddings import loading, preparation, processes
from notes.embeddings.encoder import Encoder, encoder
from notes.embeddings.processes import EmbeddingProcess
from scribes.models import Heartbeat, User
from scribes.monitoring.heartbeats import process_name
from tests.helpers.factories import make_note
from tests.helpers.processes import environment, eventually, manage, run_concurrently, running
from tests.helpers.servers import Web, web_process, worker_process

CONVERTS, IS_READY = "Converting the model", "is ready"
TOKEN = {"Authorization": f"Bearer {django_settings.METRICS_TOKEN}"}
EMBED = """
import django; django.setup()
from notes.embeddings.encoder import encoder
from notes.embeddings.loading import IN_USE
encoder().embed(["In the beginning"])
print(*(loader.loaded.name for loader in IN_USE.values()))
"""


@pytest.fixture(scope="module")
def converted() -> Path:
    """The folder of the converted model, in the data folder of this test run."""
    model = encoder()
    return preparation.prepare(model.path, model.version).parent


@pytest.fixture
def damaged(converted: Path, tmp_path: Path) -> Path:
    """A data folder with a copy of the converted model in which bytes were lost."""
    copy = tmp_path / "damaged" / "models" / converted.name
    shutil.copytree(converted, copy)
    with (copy / "model.bin").open("r+b") as file:
        file.truncate(40_000_000)
    return tmp_path / "damaged"


@pytest.fixture
def full_disk(tmp_path: Path) -> Path:
    """A data folder in which no model can be stored."""
    data = tmp_path / "full"
    data.mkdir()
    (data / "models").touch()
    return data


def embed_in_new_process(data: Path, **variables: str) -> str:
    """Everything that a new process prints; the last line names its engine."""
    command = [sys.executable, "-c", EMBED]
    env = environment(DATA_DIR=str(data), **variables)
    result = subprocess.run(
        command, env=env, cwd=django_settings.BASE_DIR, stdout=subprocess.PIPE, text=True
    )
    return result.stdout


def files(data: Path) -> list[str]:
    """What is in the folder of models, without its locks."""
    return [path.name for path in (data / "models").iterdir() if path.suffix != ".lock"]


# --- Preparation ----------------------------------------------------------------------------


def test_four_processes_at_once_convert_once(converted: Path, tmp_path: Path):
    outputs = run_concurrently(4, lambda _: embed_in_new_process(tmp_path))
    assert [output.splitlines()[-1] for output in outputs] == ["openvino"] * 4
    assert "".join(outputs).count(CONVERTS) == 1
    assert files(tmp_path) == [converted.name]


def test_prepare_replaces_a_damaged_model(damaged: Path, converted: Path):
    output = embed_in_new_process(damaged)
    assert output.splitlines()[-1] == "openvino"
    assert output.count(CONVERTS) == 1
    assert files(damaged) == [converted.name]
    assert preparation.is_complete(damaged / "models" / converted.name)


def test_prepare_succeeds_after_a_killed_conversion(tmp_path: Path, converted: Path):
    once = tmp_path / "once"
    once.touch()
    data = tmp_path / "data"
    first = embed_in_new_process(data, FAILPOINT=f"model_converted:kill:{once}")
    assert first.splitlines()[-1] == "torch"
    (unfinished,) = files(data)
    assert unfinished.endswith(".unfinished")
    assert embed_in_new_process(data).splitlines()[-1] == "openvino"
    assert files(data) == [converted.name]


def test_prepare_renews_while_another_process_converts(converted: Path, tmp_path: Path, settings):
    settings.DATA_DIR = tmp_path
    calls: list[None] = []

    def lose_the_lease() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise InterruptedError

    target = tmp_path / "models" / converted.name
    target.parent.mkdir()
    with FileLock(f"{target}.lock"):
        with pytest.raises(InterruptedError):
            preparation.prepare(encoder().path, encoder().version, lose_the_lease)
        shutil.copytree(converted, target)
    # The waiting process finds the result of the other one, too.
    assert preparation.prepare(encoder().path, encoder().version).parent == target


# --- Starting -------------------------------------------------------------------------------


def test_web_and_worker_start_with_a_converted_model(
    transactional_db: None, alice: User, tmp_path: Path
):
    """Both start at once on an empty data folder, and the worker has two pool processes."""
    data = tmp_path / "data"
    env = environment(DATA_DIR=str(data), WORKER_CONCURRENCY="2", HEARTBEAT_SECONDS="1")
    command = ["celery", "-A", "scribes", "worker"]
    with (
        running(command, tmp_path / "worker.log", env) as worker,
        web_process(tmp_path, DATA_DIR=str(data)) as web,
    ):
        assert len(files(data)) == 1
        worker.await_output(IS_READY)
        web.sign_up("bob@example.com")
        web.post("/notes", json={"title": "Rest", "content": "He leadeth me beside waters."})
        eventually(lambda: list(EmbeddingProcess.objects.values_list("engine", flat=True)))
        assert web.post("/semantic/search", json={"query": "water"}).json()["degraded"] == []
        (web_log,) = tmp_path.glob("web-*.log")
        outputs = worker.output + web_log.read_text()
    assert outputs.count(CONVERTS) == 1
    assert set(EmbeddingProcess.objects.values_list("engine", flat=True)) == {"openvino"}


def test_worker_starts_no_pool_before_the_model_is_converted(
    transactional_db: None, converted: Path, tmp_path: Path
):
    target = tmp_path / "models" / converted.name
    target.parent.mkdir()
    env = environment(DATA_DIR=str(tmp_path))
    lock = FileLock(f"{target}.lock")
    lock.acquire()  # as a process that converts
    with running(["celery", "-A", "scribes", "worker"], tmp_path / "worker.log", env) as worker:
        children = psutil.Process(worker.popen.pid).children
        eventually(lambda: [c for c in children() if "notes.embeddings.preparation" in c.cmdline()])
        assert len(children()) == 1
        assert IS_READY not in worker.output
        shutil.copytree(converted, target)
        lock.release()
        worker.await_output(IS_READY)
    assert CONVERTS not in worker.output


def test_beat_prepares_no_model(transactional_db: None, tmp_path: Path):
    env = environment(DATA_DIR=str(tmp_path / "data"))
    with running(["celery", "-A", "scribes", "beat"], tmp_path / "beat.log", env):
        eventually(lambda: Heartbeat.objects.filter(name="beat").exists())
    assert not (tmp_path / "data" / "models").exists()


# --- Rows -----------------------------------------------------------------------------------


def test_record_keeps_one_row_per_process_and_model(db: None, settings):
    settings.HEARTBEAT_SECONDS = 0
    ended = EmbeddingProcess(process="gone:1", model="m", threads=1, at=Now() - timedelta(days=2))
    ended.save()
    encoder().embed(["In the beginning"])
    processes.record()
    own = EmbeddingProcess.objects.get(process=process_name(), model=encoder().version)
    assert (own.engine, own.fallback_reason) == ("openvino", "")
    assert own.passages_per_second
    processes.record()
    # Nothing was embedded meanwhile, so the speed is still the one of the latest texts.
    again = EmbeddingProcess.objects.get(process=process_name(), model=encoder().version)
    assert again.passages_per_second == own.passages_per_second
    assert not EmbeddingProcess.objects.filter(process="gone:1").exists()


# --- The fallback ---------------------------------------------------------------------------


@pytest.fixture
def slow_worker(
    transactional_db: None, alice: User, full_disk: Path, tmp_path: Path
) -> Iterator[None]:
    """A worker that has embedded a note with torch."""
    with worker_process(tmp_path, "slow", DATA_DIR=str(full_disk)) as worker:
        assert "The embedding model is not prepared" in worker.output
        make_note(alice)
        eventually(EmbeddingProcess.objects.exists)
        yield


@pytest.mark.usefixtures("slow_worker")
def test_fallback_is_reported_to_operators(web: Web):
    """By doctor, in the metrics and on the dashboard."""
    reports = {r["name"]: r for r in json.loads(manage("doctor", "--json").stdout)}
    report = reports["embedding engine"]
    assert report["state"] == "fault"
    assert "torch runs the embedding model" in report["message"]
    assert "File exists" in report["message"]
    assert "prepare_embeddings" in report["fix"]
    metrics = web.get("/metrics", headers=TOKEN).text.splitlines()
    assert "scribes_embedding_processes_on_fallback 1.0" in metrics
    assert 'scribes_embedding_processes{engine="torch",precision="f32"} 1.0' in metrics
    User.objects.create_superuser("operator@example.com", "correct horse battery")
    html = web.sign_in_to_admin("operator@example.com", "correct horse battery")
    assert "<dt>processes with torch, f32</dt>" in html


def test_fallback_ends_when_openvino_works(
    full_disk: Path, settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(loading, "RETRY_SECONDS", 0)
    data, settings.DATA_DIR = settings.DATA_DIR, full_disk
    model = Encoder("")
    assert model.embed(["In the beginning"]).shape == (1, 384)
    assert "using torch, which is slower" in caplog.text
    assert loading.IN_USE[model.version].fallback_reason
    settings.DATA_DIR = data
    assert model.embed(["was the Word"]).shape == (1, 384)
    assert "openvino runs the model" in caplog.messages[-1]
    assert not loading.IN_USE[model.version].fallback_reason


def test_fallback_is_kept_until_the_next_attempt(
    full_disk: Path, settings, caplog: pytest.LogCaptureFixture
):
    """A failing attempt takes seconds, so not every text may wait for one."""
    data, settings.DATA_DIR = settings.DATA_DIR, full_disk
    model = Encoder("")
    model.embed(["In the beginning"])
    settings.DATA_DIR = data
    model.embed(["was the Word"])
    assert loading.IN_USE[model.version].fallback_reason


def test_prepare_embeddings_prints_why_it_fails(full_disk: Path, transactional_db: None):
    result = manage("prepare_embeddings", DATA_DIR=str(full_disk))
    assert result.returncode == 1
    assert "File exists" in result.stderr
    assert "is ready" in manage("prepare_embeddings").stdout
