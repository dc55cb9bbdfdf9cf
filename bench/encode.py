"""Texts -> vectors, compared with sentence-transformers and with the limit of the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from statistics import median

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from bench import corpus, machine
from bench.measure import Line, at_least, faster, in_turn, no_target, not_slower, p99
from notes.embeddings.encoder import encoder
from notes.embeddings.engines import Vectors

PASSAGES = 1000
# One by one, each text takes its own time, so every fifth text is enough to know the time of all.
SAMPLE_STEP = 5
QUERIES = 200
NEAREST = 10
ONE_BY_ONE = "SentenceTransformer.encode(text) one by one"
IN_BATCHES = "SentenceTransformer.encode(texts, batch_size=32)"
PEER = "sentence-transformers in float32"

# all-MiniLM-L6-v2 has six layers of width 384, each with four products of 384 by 384 and two of 384
# by 1536. In the attention, each token meets each other token of its text twice.
LAYERS, WIDTH, INNER = 6, 384, 1536
WEIGHTS = LAYERS * (4 * WIDTH**2 + 2 * WIDTH * INNER)
ATTENTION_FLOP = LAYERS * 2 * 2 * WIDTH
PRODUCT_TOKENS = 1024
PRODUCT_PASSES = 20


@cache
def reference() -> SentenceTransformer:
    """The same model as its documentation loads it: in float32, with a thread for each core."""
    return SentenceTransformer(str(encoder().path), device="cpu")


def run() -> Iterator[Line]:
    texts, ours, theirs = corpus.texts(PASSAGES), encoder(), reference()
    ours.embed(texts[:100])
    theirs.encode(texts[:100])
    product, flop = matrix_products()
    sample = texts[::SAMPLE_STEP]
    one_by_one, in_batches, own, products = map(
        median,
        in_turn(
            lambda: [theirs.encode(text) for text in sample],
            lambda: theirs.encode(texts, batch_size=32),
            lambda: ours.embed(texts),
            product,
        ),
    )
    title = f"encode {PASSAGES:,} passages of mixed length"
    peak = flop / products
    minimum = model_flop(texts) / peak
    has_bf16 = machine.has_bf16()
    yield faster(5 if has_bf16 else 2.5, title, own, ONE_BY_ONE, SAMPLE_STEP * one_by_one, minimum)
    yield faster(4 if has_bf16 else 2, title, own, IN_BATCHES, in_batches, minimum)
    yield share_of_peak(model_flop(texts) / own, peak)
    yield from agreement(texts)
    yield from one_query()


def share_of_peak(ours: float, peak: float) -> Line:
    precision = "bfloat16" if machine.has_bf16() else "float32"
    return at_least(
        0.7,
        "floating-point operations in that time, without padding",
        f"{ours / 1e12:.3f} TFLOP/s",
        f"matrix products of the model's shapes in {precision}",
        f"{peak / 1e12:.3f} TFLOP/s",
        ours / peak,
    )


def model_flop(texts: list[str]) -> int:
    """The floating-point operations that the model needs for these texts."""
    ids = reference().tokenizer(texts, truncation=True, max_length=encoder().max_tokens)
    lengths = [len(text) for text in ids["input_ids"]]
    return sum(2 * WEIGHTS * tokens + ATTENTION_FLOP * tokens**2 for tokens in lengths)


def matrix_products() -> tuple[Callable[[], None], int]:
    """A function that multiplies with the weights of all layers PRODUCT_PASSES times, and the number
    of its floating-point operations."""
    precision = torch.bfloat16 if machine.has_bf16() else torch.float32
    shapes = [(WIDTH, WIDTH)] * 4 + [(WIDTH, INNER), (INNER, WIDTH)]
    pairs = [
        (torch.rand(PRODUCT_TOKENS, rows).to(precision), torch.rand(rows, columns).to(precision))
        for rows, columns in shapes * LAYERS
    ]

    def product() -> None:
        with torch.inference_mode():
            for _ in range(PRODUCT_PASSES):
                for left, right in pairs:
                    torch.mm(left, right)

    return product, PRODUCT_PASSES * 2 * PRODUCT_TOKENS * WEIGHTS


def agreement(texts: list[str]) -> Iterator[Line]:
    """How similar the vectors of Scribes and of the peer are, and what they find."""
    own, expected = encoder().embed(texts), reference().encode(texts)
    cosine = float((own * expected).sum(axis=1).min())
    title = f"smallest cosine to the peer's vectors, {len(texts):,} passages"
    yield at_least(0.9999, title, f"{cosine:.6f}", PEER, "1", cosine, digits=4)
    queries = corpus.texts(QUERIES, seed=1)
    ours = nearest(encoder().embed(queries), own)
    theirs = nearest(reference().encode(queries), expected)
    same = sum(len(a & b) for a, b in zip(ours, theirs, strict=True))
    total = QUERIES * NEAREST
    title = f"the {NEAREST} nearest passages of {QUERIES} queries that the peer finds, too"
    yield at_least(0.99, title, f"{same:,} of {total:,}", PEER, f"{total:,}", same / total)
    all_same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    title = f"queries for which all {NEAREST} are the same"
    yield no_target(title, f"{all_same}", PEER, f"{QUERIES}", all_same / QUERIES)


def nearest(queries: Vectors, passages: Vectors) -> list[set[int]]:
    order = np.argsort(-queries @ passages.T, axis=1)
    return [set(row[:NEAREST].tolist()) for row in order]


def one_query() -> Iterator[Line]:
    """A short text, as in every search."""
    queries = iter(corpus.verses() * 2)
    ours, theirs = in_turn(
        lambda: encoder().embed([next(queries)]),
        lambda: reference().encode(next(queries)),
        rounds=QUERIES * 2,
    )
    yield not_slower(1, "encode one verse, p50", median(ours), ONE_BY_ONE, median(theirs))
    yield not_slower(1, "encode one verse, p99", p99(ours), ONE_BY_ONE, p99(theirs))
