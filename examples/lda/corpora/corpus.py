"""A corpus as latent Dirichlet allocation sees it: how often each word is in each document, and nothing of their order.

A *document* is a row, a *word* an entry of the vocabulary, a *token* one occurrence of a word; V is the number of
words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

LARGEST_COUNT = int(np.iinfo(np.int32).max)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents as counts of words, in compressed rows; arrays may be memory maps, and may be read-only.

    The words of document d are ``words[indptr[d]:indptr[d + 1]]``. A document may be empty, a word unused.
    """

    indptr: NDArray[np.int64]
    """Where each document's entries begin, and the number of all of them. [documents + 1]"""

    words: NDArray[np.int32]
    """Numbers of words, ascending and unique within a document. [entries]"""

    counts: NDArray[np.int32]
    """How often, at least 1. [entries]"""

    vocabulary: Sequence[str]
    """The words themselves. [V]"""

    name: str
    """For titles: "pydocs", "docword.nytimes.txt.gz"."""

    digest: str
    """Of the arrays and the vocabulary, see `content_digest`: equal content, equal digest."""

    @property
    def documents(self) -> int:
        """Number of documents, empty ones included."""
        return len(self.indptr) - 1

    @property
    def V(self) -> int:  # noqa: N802 - the letter of the papers
        """Number of words in the vocabulary."""
        return len(self.vocabulary)

    @cached_property
    def tokens(self) -> int:
        """Number of occurrences of words in all documents."""
        return int(self.counts.sum(dtype=np.int64))


def content_digest(
    indptr: NDArray[np.int64], words: NDArray[np.int32], counts: NDArray[np.int32], vocabulary: Sequence[str]
) -> str:
    """What identifies a corpus, whatever it is called and however it is stored.

    Args:
        indptr: [documents + 1]
        words: [entries]
        counts: [entries]
        vocabulary: [V]

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{len(indptr)} {len(words)} {len(vocabulary)}\n".encode())
    for array, dtype in ((indptr, "<i8"), (words, "<i4"), (counts, "<i4")):
        digest.update(np.ascontiguousarray(array, dtype=dtype).data)
    digest.update("\n".join(vocabulary).encode())
    return digest.hexdigest()
