"""Loops over single bytes and single entries, compiled by numba; imported only where a file is read."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_TOO_LARGE = 1 << 40  # beyond every limit, and safe to multiply by ten


@njit(cache=True)
def parse_entries(
    text: NDArray[np.uint8],
    fields: int,
    least: int,
    most: NDArray[np.int64],
    rows: NDArray[np.int64],
    entries: NDArray[np.int32],
    last: NDArray[np.int64],
) -> tuple[int, int]:
    """Read lines of whole numbers up to one that is wrong, not blank lines, nor counts of 0; 3.0 and 3e+00 are 3.

    Args:
        text: Whole lines, each with its end. [bytes]
        fields: Of a line. 3: document, word and count, the first two from 1; 2: the count is 1; 1: a count alone, of
            all documents for the first word, then for the second.
        least: The smallest count, 0 or 1.
        most: The largest document, word and count, and number of lines with an entry: one more is wrong. [4]
        rows: Gains the number of entries of each document. [documents]
        entries: Takes documents and words, counted from 0, and counts. [3, lines]
        last: Document and word of the entry before, both -1 before the first; 1 as long as entries ascend; lines with
            an entry so far, those of 0 included. [4]

    Returns:
        Entries taken, and lines before the one that is wrong; -1 if none is.
    """
    found, line, at, value = 0, 0, 0, np.ones(3, np.int64)
    while at < len(text):
        at, seen = _read_line(text, at, fields, value)
        if seen > 0:
            if fields == 1:
                value[2], value[1], value[0] = value[0], last[3] // most[0] + 1, last[3] % most[0] + 1
            good = seen == fields and least <= value[2] <= most[2] and last[3] < most[3]
            if not (good and 1 <= value[0] <= most[0] and 1 <= value[1] <= most[1]):
                return found, line
            last[3] += 1
            if value[2] > 0:
                _take(value, rows, entries[:, found], last)
                found += 1
        line += 1
    return found, -1


@njit(cache=True)
def _read_line(text: Any, at: Any, fields: int, value: Any) -> Any:
    """Read the fields of the line that begins at a place into `value`; gives back where the next begins, and how many
    there were.
    """
    seen = 0
    while text[at] != 10:
        if _is_blank(text[at]):
            at += 1
            continue
        begin = at
        while not _is_blank(text[at]):
            at += 1
        seen += 1
        value[min(seen, 3) - 1] = _number(text, begin, at, seen == fields)
    return at + 1, seen


@njit(cache=True)
def _take(value: Any, rows: Any, entry: Any, last: Any) -> None:
    """Take a document, word and count, the first two from 1; for `rows` and `last` see `parse_entries`."""
    document, word = value[0] - 1, value[1] - 1
    entry[0], entry[1], entry[2] = document, word, value[2]
    rows[document] += 1
    if document < last[0] or (document == last[0] and word <= last[1]):
        last[2] = 0
    last[0], last[1] = document, word


@njit(cache=True)
def _is_blank(byte: Any) -> Any:
    return byte == 32 or 9 <= byte <= 10 or byte == 13  # space, tab, ends of a line


@njit(cache=True)
def _number(text: Any, begin: int, end: int, any_form: bool) -> Any:
    """The whole number between two places, at most `_TOO_LARGE`; -1 if it is none. Digits only, or in any form."""
    number: Any = 0
    at = begin
    while at < end and 48 <= text[at] <= 57:
        number = min(number * 10 + np.int64(text[at]) - 48, _TOO_LARGE)
        at += 1
    if at == end:
        return number
    return _decimal(text, at, end, number) if any_form and at > begin else -1


@njit(cache=True)
def _decimal(text: Any, at: int, end: int, number: Any) -> Any:
    """The same from behind the digits that `number` is: a fraction and an exponent."""
    power, zeros = 0, 0
    exponent: Any = 0
    sign: Any = 1
    if text[at] == 46:
        at += 1
        while at < end and 48 <= text[at] <= 57:
            zeros += 1
            if text[at] != 48:  # zeros mean something only before another digit
                for _ in range(zeros):
                    number, power = min(number * 10, _TOO_LARGE), power - 1
                number, zeros = number + np.int64(text[at]) - 48, 0
            at += 1
    if at < end and text[at] in (69, 101):
        at += 1
        if at < end and text[at] in (43, 45):
            sign = 44 - np.int64(text[at])
            at += 1
        if at == end:
            return -1
        while at < end and 48 <= text[at] <= 57:
            exponent = min(exponent * 10 + np.int64(text[at]) - 48, 1000)
            at += 1
    return _scaled(number, power + sign * exponent) if at == end else -1


@njit(cache=True)
def _scaled(number: Any, power: Any) -> Any:
    """Number times a power of ten."""
    while power > 0 and 0 < number < _TOO_LARGE:
        number, power = min(number * 10, _TOO_LARGE), power - 1
    while power < 0 and number > 0:
        if number % 10 != 0:
            return -1
        number, power = number // 10, power + 1
    return number


@njit(cache=True)
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
