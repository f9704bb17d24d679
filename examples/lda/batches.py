"""Batches of documents out of a corpus that several processes share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from hsa2c.examples.lda.corpora import Corpus

Ints = NDArray[np.int32]


class Batch(NamedTuple):
    """Some documents, with the words that they have between them."""

    starts: NDArray[np.int64]
    """Where each document begins in `local` and `counts`, int64 [G + 1]."""
    local: Ints
    """Which of `rows` each distinct word of each document is, int32 [n]."""
    counts: Ints
    """How often the document has it, int32 [n]."""
    rows: Ints
    """The batch's words, each once, int32 [R]."""

    @property
    def documents(self) -> int:
        """G."""
        return self.starts.size - 1


class Gatherer:
    """Copies documents out of a corpus; its buffers are used again, so a batch is valid until the next.

    Args:
        corpus: Where from.
    """

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._seen = np.full(corpus.V, -1, np.int64)  # the batch in which a word was last seen
        self._place = np.empty(corpus.V, np.int32)
        self._number = 0
        self._local = self._counts = self._rows = np.empty(0, np.int32)

    def __call__(self, documents: Ints) -> Batch:
        """The batch of these documents."""
        corpus = self._corpus
        lengths = corpus.indptr[documents + 1] - corpus.indptr[documents]
        starts = np.concatenate(([0], np.cumsum(lengths)))
        if self._local.size < starts[-1]:
            self._local, self._counts, self._rows = np.empty((3, 2 * starts[-1]), np.int32)
        self._number += 1
        n = starts[-1]
        R = _gather(
            corpus.indptr, corpus.words, corpus.counts, documents, self._number,
            self._seen, self._place, self._local, self._counts, self._rows,
        )  # fmt: skip
        return Batch(starts, self._local[:n], self._counts[:n], self._rows[:R])


def endless(documents: Ints, size: int, *, seed: int, part: int, parts: int) -> Iterator[Ints]:
    """Batches without end: in each pass the documents are shuffled anew, and dealt out to `parts` processes.

    All processes shuffle alike, so between them they see each document once in a pass.

    Args:
        documents: Ids, int32 [D].
        size: G; fewer in the last batch of a pass.
        seed: Of the shuffling, the same for all processes.
        part: Which of the processes this is, from 0.
        parts: How many there are.
    """
    number = 0
    while True:
        mine = np.random.default_rng([seed, number]).permutation(documents)[part::parts]
        if not mine.size:  # more processes than documents
            mine = documents[part % documents.size : part % documents.size + 1]
        for first in range(0, mine.size, size):
            yield mine[first : first + size]
        number += 1


@njit(cache=True, nogil=True)
def _gather(
    indptr: Any, words: Any, counts: Any, documents: Any, number: Any,
    seen: Any, place: Any, local_out: Any, counts_out: Any, rows_out: Any,
) -> int:  # fmt: skip
    n = R = 0
    for d in documents:
        for i in range(indptr[d], indptr[d + 1]):
            w = words[i]
            if seen[w] != number:
                seen[w] = number
                place[w] = R
                rows_out[R] = w
                R += 1
            local_out[n] = place[w]
            counts_out[n] = counts[i]
            n += 1
    return R
