"""Texts -> vectors, against sentence-transformers and against what the processor can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from statistics import median

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from bench import corpus, machine
from bench.measure import Line, as_fast, at_least, faster, in_turn, p99, told
from notes.embedding import encoder
from notes.engines import Vectors

PASSAGES = 1000
# One by one each text takes its own time, so every fifth is enough to know that of all.
SAMPLE = 5
QUERIES = 200
NEAREST = 10
LOOP = "SentenceTransformer.encode(text) one by one"
BATCH = "SentenceTransformer.encode(texts, batch_size=32)"

# all-MiniLM-L6-v2: six layers of width 384, each with four products of 384 by 384 and two of 384
# by 1536; in the attention a token meets each other token of its text twice.
LAYERS, WIDTH, INNER = 6, 384, 1536
WEIGHTS = LAYERS * (4 * WIDTH**2 + 2 * WIDTH * INNER)
ATTENTION_FLOP = LAYERS * 2 * 2 * WIDTH
PRODUCT_TOKENS = 1024
PRODUCT_PASSES = 20


@cache
def reference() -> SentenceTransformer:
    """float32, as its documentation loads it, with as many threads as there are cores."""
    return SentenceTransformer(str(encoder().path), device="cpu")


def run() -> Iterator[Line]:
    texts, ours, theirs = corpus.texts(PASSAGES), encoder(), reference()
    ours.embed(texts[:100])
    theirs.encode(texts[:100])
    product, flop = matrix_products()
    sample = texts[::SAMPLE]
    one_by_one, batches, own, products = map(
        median,
        in_turn(
            lambda: [theirs.encode(text) for text in sample],
            lambda: theirs.encode(texts, batch_size=32),
            lambda: ours.embed(texts),
            product,
        ),
    )
    what = f"encode {PASSAGES:,} mixed passages"
    peak = flop / products
    least = model_flop(texts) / peak
    yield faster(5 if machine.has_bf16() else 2.5, what, own, LOOP, SAMPLE * one_by_one, least)
    yield faster(4 if machine.has_bf16() else 2, what, own, BATCH, batches, least)
    yield of_the_peak(model_flop(texts) / own, peak)
    yield from same_vectors(texts)
    yield from one_query()


def of_the_peak(ours: float, peak: float) -> Line:
    precision = "bfloat16" if machine.has_bf16() else "float32"
    return at_least(
        0.7,
        "the same, FLOP/s, padding not counted",
        f"{ours / 1e12:.3f} TFLOP/s",
        f"matrix products of the model's shapes in {precision}",
        f"{peak / 1e12:.3f} TFLOP/s",
        ours / peak,
    )


def model_flop(texts: list[str]) -> int:
    """What the model has to compute for these texts."""
    ids = reference().tokenizer(texts, truncation=True, max_length=encoder().max_tokens)
    lengths = [len(text) for text in ids["input_ids"]]
    return sum(2 * WEIGHTS * tokens + ATTENTION_FLOP * tokens**2 for tokens in lengths)


def matrix_products() -> tuple[Callable[[], None], int]:
    """The products of all layers with their weights, PRODUCT_PASSES times; and their FLOP."""
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


def same_vectors(texts: list[str]) -> Iterator[Line]:
    own, expected = encoder().embed(texts), reference().encode(texts)
    cosine = float((own * expected).sum(axis=1).min())
    what, peer = f"the same vectors, {len(texts):,} passages", "sentence-transformers in float32"
    yield at_least(0.9999, what, f"{cosine:.6f}", peer, "1", cosine, digits=4)
    queries = corpus.texts(QUERIES, seed=1)
    ours = nearest(encoder().embed(queries), own)
    theirs = nearest(reference().encode(queries), expected)
    same = sum(len(a & b) for a, b in zip(ours, theirs, strict=True))
    of = QUERIES * NEAREST
    what = f"the same nearest {NEAREST} of {QUERIES} queries"
    yield at_least(0.99, what, f"{same:,} of {of:,}", peer, f"{of:,}", same / of)
    all_same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    what = f"queries of these with all {NEAREST} the same"
    yield told(what, f"{all_same}", peer, f"{QUERIES}", all_same / QUERIES)


def nearest(queries: Vectors, passages: Vectors) -> list[set[int]]:
    order = np.argsort(-queries @ passages.T, axis=1)
    return [set(row[:NEAREST].tolist()) for row in order]


def one_query() -> Iterator[Line]:
    """A short text, as every search has one."""
    queries = iter(corpus.verses() * 2)
    own, peer = in_turn(
        lambda: encoder().embed([next(queries)]),
        lambda: reference().encode(next(queries)),
        rounds=QUERIES * 2,
    )
    yield as_fast(1, "encode one verse, p50", median(own), LOOP, median(peer))
    yield as_fast(1, "encode one verse, p99", p99(own), LOOP, p99(peer))
