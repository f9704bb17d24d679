"""Entries in any order, some of them repeated, as compressed rows: words ascending and unique in each document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora.corpus import LARGEST_COUNT
from hsa2c.examples.lda.corpora.extras import kernels
from hsa2c.examples.lda.corpora.storage import COUNTS, WORDS, growing_array, read_array

BLOCK_ENTRIES = 1 << 20


class Entries(NamedTuple):
    """Files of numbers, .npy, each int32 [entries]."""

    documents: Path
    """Of each entry, from 0."""

    words: Path
    """From 0."""

    counts: Path
    """At least 1."""


def merged(
    rows: NDArray[np.int64], words: NDArray[np.int32], counts: NDArray[np.int32], what: str, first: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Sort the words of each document, and add up the counts of those that are repeated.

    Args:
        rows: Entries of each document. [documents]
        words: Document by document. [entries]
        counts: [entries]
        what: Where it is from, for the error.
        first: Number of the first document, from 0, for the error.

    Returns:
        The same three, sorted; the last two may be shorter.

    Raises:
        ConfigError: A sum is too large.
    """
    if not len(words):
        return rows, words, counts
    V = int(words.max()) + 1
    key = np.repeat(np.arange(len(rows)), rows) * V + words
    order = np.argsort(key, kind="stable")
    key = key[order]
    new = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    key = key[new]
    sums = np.add.reduceat(counts[order], new, dtype=np.int64)
    if sums.max() > LARGEST_COUNT:
        document, word = divmod(int(key[sums.argmax()]), V)
        raise ConfigError(
            f"{what}: document {first + document + 1}: the counts of word {word + 1} (both from 1) add up to "
            f"{sums.max()}: must be at most {LARGEST_COUNT}"
        )
    return np.bincount(key // V, minlength=len(rows)), (key % V).astype(np.int32), sums.astype(np.int32)


def group(directory: Path, rows: NDArray[np.int64], entries: Entries, what: str) -> NDArray[np.int64]:
    """Write a corpus's entries from files that have them in any order. Needs little memory of its own.

    Args:
        directory: Where `WORDS` and `COUNTS` are made.
        rows: How many entries each document has. [documents]
        entries: The files. They are deleted.
        what: Where they are from, for the error.

    Returns:
        How many entries each document has once those repeated are added up. [documents]

    Raises:
        ConfigError: A sum is too large.
    """
    begin = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows)])
    grouped = directory / "grouped-words.npy", directory / "grouped-counts.npy"
    words, counts = (np.lib.format.open_memmap(path, "w+", np.int32, (int(begin[-1]),)) for path in grouped)
    cursor = begin[:-1].copy()
    scatter = kernels().scatter_entries
    for block in zip(*(read_array(path, BLOCK_ENTRIES) for path in entries), strict=True):
        scatter(*block, cursor, words, counts)
    for path in entries:
        path.unlink()
    with growing_array(directory / WORDS, np.int32) as all_words, growing_array(directory / COUNTS, np.int32) as sums:
        for first, last in _spans(begin):
            part = slice(begin[first], begin[last])
            rows[first:last], block_words, block_sums = merged(rows[first:last], words[part], counts[part], what, first)
            all_words.append(block_words)
            sums.append(block_sums)
    del words, counts
    for path in grouped:
        path.unlink()
    return rows


def _spans(begin: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Documents in spans of about `BLOCK_ENTRIES`, each at least one: the first, and the one after the last."""
    first, documents = 0, len(begin) - 1
    while first < documents:
        fit = int(np.searchsorted(begin, begin[first] + BLOCK_ENTRIES, side="right")) - 1
        last = min(max(fit, first + 1), documents)
        yield first, last
        first = last
