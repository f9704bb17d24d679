"""Corpora drawn from the model itself, with topics that are known: for benchmarks and tests."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hsa2c.examples.lda.corpora import Corpus

_CHUNK = 4096  # documents drawn at a time
_LINES = 1 << 18  # entries written at a time


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A corpus of latent Dirichlet allocation."""

    documents: int = 22_000
    V: int = 10_000
    K: int = 50
    alpha: float = 0.1
    """Prior of a document's topics."""
    tokens: float = 200.0
    """Of a document, on the average (Poisson)."""
    concentration: float = 500.0
    """Of a topic's words around the words' overall frequencies, which fall as 1 / (rank + 10)."""
    seed: int = 0


def draw_topics(recipe: Recipe) -> NDArray[np.float64]:
    """beta, float64 [K, V]: Dirichlet around Zipf's law, so that topics share their frequent words."""
    frequencies = 1.0 / (np.arange(recipe.V) + 10.0)
    prior = recipe.concentration * frequencies / frequencies.sum()
    gammas = np.random.default_rng([recipe.seed, 0]).gamma(prior, size=(recipe.K, recipe.V)) + 1e-12
    topics: NDArray[np.float64] = gammas / gammas.sum(axis=1, keepdims=True)
    return topics


def draw_documents(recipe: Recipe, topics: NDArray[np.float64]) -> Corpus:
    """Documents of these topics."""
    random = np.random.default_rng([recipe.seed, 1])
    cumulative = topics.cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    lengths, words, counts = [np.zeros(1, np.int64)], [], []
    for first in range(0, recipe.documents, _CHUNK):
        D = min(_CHUNK, recipe.documents - first)
        theta = random.dirichlet(np.full(recipe.K, recipe.alpha), D)
        tokens = random.multinomial(np.maximum(random.poisson(recipe.tokens, D), 2), theta)  # [D, K]
        document = np.concatenate([np.repeat(np.arange(D), tokens[:, k]) for k in range(recipe.K)])
        word = np.concatenate(
            [np.searchsorted(cumulative[k], random.random(int(tokens[:, k].sum()))) for k in range(recipe.K)]
        )
        keys, count = np.unique(document * recipe.V + word, return_counts=True)
        lengths.append(np.bincount(keys // recipe.V, minlength=D))
        words.append((keys % recipe.V).astype(np.int32))
        counts.append(count.astype(np.int32))
    return Corpus(
        indptr=np.cumsum(np.concatenate(lengths)),
        words=np.concatenate(words),
        counts=np.concatenate(counts),
        vocabulary=[f"word{w:06d}" for w in range(recipe.V)],
        name="synthetic",
        digest=hashlib.sha256(repr(recipe).encode()).hexdigest(),
    )


def write_uci(corpus: Corpus, counts: Path, vocabulary: Path) -> None:
    """Write a corpus as UCI bag-of-words (gzipped where the name ends so) and its words."""
    vocabulary.write_text("".join(f"{word}\n" for word in corpus.vocabulary), encoding="utf-8")
    document = np.repeat(np.arange(1, corpus.documents + 1, dtype=np.int32), np.diff(corpus.indptr))
    buffer = np.empty(36 * _LINES, np.uint8)
    with gzip.open(counts, "wb", compresslevel=1) if counts.suffix == ".gz" else counts.open("wb") as file:
        file.write(f"{corpus.documents}\n{corpus.V}\n{corpus.words.size}\n".encode())
        for first in range(0, corpus.words.size, _LINES):
            here = slice(first, first + _LINES)
            length = _print(document[here], corpus.words[here], corpus.counts[here], buffer)
            file.write(buffer[:length].tobytes())


@njit(cache=True)
def _print(documents: Any, words: Any, counts: Any, buffer: Any) -> int:
    """Lines ``document word count`` as ASCII, words from 1; gives back how many bytes."""
    at = 0
    digits = np.empty(12, np.uint8)
    for i in range(documents.size):
        for field in range(3):
            value = documents[i] if field == 0 else words[i] + 1 if field == 1 else counts[i]
            n = 0
            while value > 0:
                digits[n] = 48 + value % 10
                value //= 10
                n += 1
            while n:
                n -= 1
                buffer[at] = digits[n]
                at += 1
            buffer[at] = 10 if field == 2 else 32
            at += 1
    return at
