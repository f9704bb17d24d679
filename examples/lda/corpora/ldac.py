"""The format of Blei's lda-c: a line for each document, "N word:count word:count ...", with N pairs, words from 0.

Counts may be written as 3, 3.0 or 3e+00.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora.corpus import LARGEST_COUNT
from hsa2c.examples.lda.corpora.lines import open_lines, shown
from hsa2c.examples.lda.corpora.rows import merged
from hsa2c.examples.lda.corpora.storage import COUNTS, WORDS, complete, growing_array
from hsa2c.examples.lda.corpora.vocabulary import read_vocabulary

_WHOLE = re.compile(rb"\s*[0-9]{1,10}(?:\s+[0-9]{1,10}:[0-9]{1,10})*\s*")
_PAIR = re.compile(rb"[0-9]{1,10}:[0-9]{1,10}(?:\.[0-9]{0,40})?(?:[eE][+-]?[0-9]{1,3})?")
_DOCUMENT = re.compile(rb"\s*[0-9]{1,10}(?:\s+" + _PAIR.pattern + rb")*\s*")


def read_ldac(
    path: Path, vocabulary: Path, directory: Path, *, encoding: str = "utf-8", progress: bool = False
) -> None:
    """Read a file of documents.

    Args:
        path: The file, plain or packed by gzip.
        vocabulary: A file of words, see `read_vocabulary`.
        directory: Where the corpus is written.
        encoding: Of the vocabulary.
        progress: Show a bar if stderr is a terminal.

    Raises:
        ConfigError: One of the two files is not as described; names the line.
    """
    rows, blank = list[int](), None
    with (
        open_lines(path, progress=progress) as lines,
        growing_array(directory / WORDS, np.int32) as all_words,
        growing_array(directory / COUNTS, np.int32) as all_counts,
    ):
        vocabulary_words = read_vocabulary(vocabulary, encoding)
        for number, line in lines.each():
            if not line.strip():
                blank = number if blank is None and rows else blank  # fine before the first document, behind the last
                continue
            if blank is not None:
                raise lines.error(_misspelt(b""), blank)
            try:
                words, counts = _document(line, len(vocabulary_words))
            except ValueError as fault:
                raise lines.error(str(fault), number) from None
            if not (words[1:] > words[:-1]).all():
                _, words, counts = merged(np.array([len(words)]), words, counts, str(path), number - 1)
            rows.append(len(words))
            all_words.append(words)
            all_counts.append(counts)
    if not rows:
        raise ConfigError(f"{path}: has no documents")
    complete(directory, np.array(rows, np.int64), vocabulary_words, path.name)


def _document(line: bytes, V: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The words and counts of a line, as they come. Both [pairs].

    Raises:
        ValueError: Says what is wrong with it.
    """
    whole = _WHOLE.fullmatch(line)
    if not whole and not _DOCUMENT.fullmatch(line):
        raise ValueError(_misspelt(line))
    numbers = np.fromstring(line.replace(b":", b" ").decode(), np.int64 if whole else np.float64, sep=" ")
    n, words, counts = int(numbers[0]), numbers[1::2].astype(np.int64), numbers[2::2]
    if n != len(words):
        raise ValueError(f"N = {n}: must be the number of pairs that follow, which is {len(words)}")
    if (words >= V).any():
        raise ValueError(f"word = {words[words >= V][0]}: must be from 0 to {V - 1}, the last of the vocabulary")
    wrong = (counts < 1) | (counts > LARGEST_COUNT) | (counts != np.floor(counts))
    if wrong.any():
        raise ValueError(f"count = {counts[wrong][0]}: must be a whole number from 1 to {LARGEST_COUNT}")
    return words.astype(np.int32), counts.astype(np.int32)


def _misspelt(line: bytes) -> str:
    """What in a line is not even of the right form."""
    first, *pairs = line.split() or [b""]
    if not re.fullmatch(rb"[0-9]{1,10}", first):
        return f"N = {shown(first)}: must be the number of pairs that follow, 0 for an empty document"
    wrong = [pair for pair in pairs if not _PAIR.fullmatch(pair)]
    return f"{shown(wrong[0] if wrong else line)}: must be word:count"
