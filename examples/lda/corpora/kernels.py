"""Loops over single bytes and single entries, compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from examples.lda.corpora.extras import extra

P = ParamSpec("P")
R = TypeVar("R")

_TOO_LARGE = 1 << 40  # beyond every limit, and safe to multiply by ten


@cache
def compiled(kernel: Callable[P, R]) -> Callable[P, R]:
    """The machine code of a function below; from numba's cache on disk, but for the first time.

    Raises:
        ConfigError: numba is not installed.
    """
    numba = extra("numba", "numba", "UCI bag-of-words")
    return cast("Callable[P, R]", numba.njit(cache=True)(kernel))


def parse_entries(
    text: NDArray[np.uint8],
    most: NDArray[np.int64],
    rows: NDArray[np.int64],
    entries: NDArray[np.int32],
    last: NDArray[np.int64],
) -> tuple[int, int]:
    """Read lines "document word count", counted from 1, up to one that is wrong. Blank lines are passed over.

    Args:
        text: Whole lines, each with its end. [bytes]
        most: The largest document, word and count. [3]
        rows: Gains the number of entries of each document. [documents]
        entries: Takes documents and words, counted from 0, and counts. [3, lines]
        last: Document and word of the entry before, both -1 before the first; and 1 as long as entries ascend. [3]

    Returns:
        The number of entries read, and of lines before the one that is wrong; -1 if none is.
    """
    found, line, at = 0, 0, 0
    value = np.zeros(3, np.int64)
    while at < len(text):
        fields, in_number, good = 0, False, True
        while text[at] != 10:
            byte = np.int64(text[at])
            at += 1
            if 48 <= byte <= 57:
                if not in_number:
                    fields, in_number = fields + 1, True
                    value[min(fields, 3) - 1] = 0
                field = min(fields, 3) - 1
                value[field] = min(value[field] * 10 + byte - 48, _TOO_LARGE)
            else:
                in_number = False
                good = good and byte in (32, 9, 13)  # space, tab, carriage return
        at += 1
        if fields > 0 or not good:
            good = good and fields == 3
            for which in range(3):
                good = good and 1 <= value[which] <= most[which]
            if not good:
                return found, line
            document, word = value[0] - 1, value[1] - 1
            entries[0, found], entries[1, found], entries[2, found] = document, word, value[2]
            rows[document] += 1
            if document < last[0] or (document == last[0] and word <= last[1]):
                last[2] = 0
            last[0], last[1] = document, word
            found += 1
        line += 1
    return found, -1


def scatter_entries(
    documents: NDArray[np.int32],
    words: NDArray[np.int32],
    counts: NDArray[np.int32],
    cursor: NDArray[np.int64],
    grouped_words: NDArray[np.int32],
    grouped_counts: NDArray[np.int32],
) -> None:
    """Put entries where those of their document go, in the order in which they come.

    Args:
        documents: [n]
        words: [n]
        counts: [n]
        cursor: Where each document's next entry goes; moved on. [documents]
        grouped_words: [entries]
        grouped_counts: [entries]
    """
    for entry in range(len(documents)):
        place = cursor[documents[entry]]
        grouped_words[place], grouped_counts[place] = words[entry], counts[entry]
        cursor[documents[entry]] = place + 1
