"""Matrices of counts in text, a line for each entry: what the UCI repository's files and MatrixMarket have in common.

A file is read in blocks, and what is read goes to disk, so memory does not grow with it. Entries may come in any order,
and repeated ones are added up. What a header says is believed as far as the file's size allows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora.corpus import LARGEST_COUNT
from hsa2c.examples.lda.corpora.extras import kernels
from hsa2c.examples.lda.corpora.lines import BLOCK_BYTES, Lines, open_lines, shown
from hsa2c.examples.lda.corpora.rows import Entries, group
from hsa2c.examples.lda.corpora.storage import COUNTS, WORDS, GrowingArray, complete, growing_array
from hsa2c.examples.lda.corpora.vocabulary import read_vocabulary

LARGEST_NUMBER = int(np.iinfo(np.int32).max)
MOST_ENTRIES = 10**18

_ANY_DOCUMENTS = 1_000_000  # though they are empty, and take no place in a file
_COUNT = re.compile(rb"-?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says at its beginning."""

    documents: int
    words: int
    entries: int
    """Lines of entries."""
    line: int
    """Where the number of entries is, from 1."""
    words_line: int
    fields: tuple[str, ...] = ("document", "word", "count")
    """Names of a line's numbers; a count alone is of all documents for the first word, then for the second."""
    least: int = 1
    """The smallest count, 0 or 1."""
    mirrored: bool = False
    """Each entry beside the diagonal stands for two."""


def most_documents(lines: Lines) -> int:
    """How many documents a header may speak of."""
    return min(LARGEST_NUMBER, _ANY_DOCUMENTS + lines.most_bytes)


def read_matrix(
    path: Path,
    vocabulary: Path,
    directory: Path,
    read_header: Callable[[Lines], Header],
    *,
    encoding: str = "utf-8",
    progress: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Read a file of entries, plain or packed by gzip.

    Args:
        path: The file.
        vocabulary: A file with as many words as `path` says, see `read_vocabulary`.
        directory: Where the corpus is written.
        read_header: Reads the lines before the entries.
        encoding: Of the vocabulary.
        progress: Show a bar if stderr is a terminal.
        block_bytes: How much to read at once.

    Raises:
        ConfigError: One of the two files is not as described; names the line.
    """
    with open_lines(path, progress=progress, block_bytes=block_bytes) as lines:
        header = read_header(lines)
        words = read_vocabulary(vocabulary, encoding)
        if len(words) != header.words:
            where = f"see line {header.words_line} of {path}"
            raise ConfigError(f"{vocabulary}: has {len(words)} words; must have {header.words}, {where}")
        entries = Entries(directory / "documents.npy", directory / WORDS, directory / COUNTS)
        rows, ascending = _read_entries(lines, header, entries)
    if ascending:
        entries.documents.unlink()
    else:
        unsorted = Entries(*(file.rename(directory / f"unsorted-{file.name}") for file in entries))
        rows = group(directory, rows, unsorted, str(path))
    complete(directory, rows, words, path.name)


def _read_entries(lines: Lines, header: Header, entries: Entries) -> tuple[NDArray[np.int64], bool]:
    """Write the entries to files as they come.

    Returns:
        How many each document has [documents], and whether they are sorted and none is repeated.
    """
    parse = kernels().parse_entries
    most = np.array([header.documents, header.words, LARGEST_COUNT, header.entries])
    rows = np.zeros(header.documents, np.int64)
    last = np.array([-1, -1, 1, 0])
    shortest_line = 2 * len(header.fields)  # "1 1 1\n"
    with (
        growing_array(entries.documents, np.int32) as documents,
        growing_array(entries.words, np.int32) as words,
        growing_array(entries.counts, np.int32) as counts,
    ):
        for block in lines.blocks():
            found = np.empty((3, len(block) // shortest_line + 1), np.int32)
            text = np.frombuffer(block, np.uint8)
            n, wrong = parse(text, len(header.fields), header.least, most, rows, found, last)
            if wrong >= 0:
                surplus = last[3] == header.entries
                fault = f"more entries than the {header.entries} of line {header.line}"
                fault = fault if surplus else _fault(block.split(b"\n")[wrong], header)
                raise lines.error(fault, lines.before + wrong + 1)
            _append((documents, words, counts), found[:, :n], rows if header.mirrored else None)
        if last[3] < header.entries:
            raise lines.error(f"{header.entries} entries: the file has {last[3]}", header.line)
    return rows, bool(last[2]) and not header.mirrored


def _append(files: tuple[GrowingArray, ...], found: NDArray[np.int32], mirrored: NDArray[np.int64] | None) -> None:
    """Write entries; with `mirrored`, how many each document has, also those on the other side of the diagonal."""
    if mirrored is not None:
        others = found[:, found[0] != found[1]][[1, 0, 2]]
        np.add.at(mirrored, others[0], 1)
        found = np.concatenate([found, others], axis=1)
    for file, values in zip(files, found, strict=True):
        file.append(values)


def _fault(line: bytes, header: Header) -> str:
    """What is wrong with a line that could not be read."""
    fields, names = re.findall(rb"[^ \t\r]+", line), header.fields  # as the kernel has it
    if len(fields) == len(names):
        for name, field, most in zip(names, fields, (header.documents, header.words), strict=False):
            if name == "count":
                break
            if not re.fullmatch(rb"-?[0-9]+", field):
                return f"{name} = {shown(field)}: must be an integer"
            digits = field.lstrip(b"0")[:20]  # as many as tell that it is too large
            if not 1 <= int(digits or b"0") <= most:
                return f"{name} = {_cut(field)}: must be from 1 to {most}"
        if names[-1] == "count" and _COUNT.fullmatch(fields[-1]):
            return f"count = {_cut(fields[-1])}: must be a whole number from {header.least} to {LARGEST_COUNT}"
    wanted = {1: "a count", 2: f"two numbers: {' and '.join(names)}", 3: f"three numbers: {', '.join(names[:2])} and"}
    return f"{shown(line)}: must be {wanted[len(names)]}{' ' + names[2] if len(names) == 3 else ''}"


def _cut(field: bytes) -> str:
    return field.decode()[:20] + "..." * (len(field) > 20)
