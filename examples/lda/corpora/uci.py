"""The bag-of-words files of the UCI repository: NIPS, KOS, Enron, NYTimes, PubMed.

Three lines with the numbers of documents (D), words (W) and entries (NNZ), then one line for each entry: document, word
and count, the first two counted from 1. The file is read in blocks, and what is read goes to disk, so memory does not
grow with it. Entries may come in any order, and repeated ones are added up.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from examples.lda.corpora.corpus import LARGEST_COUNT
from examples.lda.corpora.kernels import compiled, parse_entries
from examples.lda.corpora.lines import BLOCK_BYTES, Lines, open_lines, read_vocabulary, shown
from examples.lda.corpora.rows import Entries, group
from examples.lda.corpora.storage import COUNTS, WORDS, complete, growing_array
from hsa2c.errors import ConfigError

_LARGEST_NUMBER = int(np.iinfo(np.int32).max)
_SHORTEST_LINE = len("1 1 1\n")


class _Header(NamedTuple):
    documents: int
    words: int
    entries: int


def read_uci(
    path: Path, vocabulary: Path, directory: Path, *, progress: bool = False, block_bytes: int = BLOCK_BYTES
) -> None:
    """Read a file of bags of words, plain or packed by gzip.

    Args:
        path: The file.
        vocabulary: A file with as many words as `path` says, one on each line.
        directory: Where the corpus is written.
        progress: Show a bar if stderr is a terminal.
        block_bytes: How much to read at once.

    Raises:
        ConfigError: One of the two files is not as described; names the line.
    """
    with open_lines(path, progress=progress, block_bytes=block_bytes) as lines:
        header = _read_header(lines)
        words = read_vocabulary(vocabulary)
        if len(words) != header.words:
            raise ConfigError(f"{vocabulary}: has {len(words)} words; must have {header.words}, see line 2 of {path}")
        entries = Entries(directory / "documents.npy", directory / WORDS, directory / COUNTS)
        rows, ascending = _read_entries(lines, header, entries)
    if ascending:
        entries.documents.unlink()
    else:
        unsorted = Entries(*(file.rename(directory / f"unsorted-{file.name}") for file in entries))
        rows = group(directory, rows, unsorted, str(path))
    complete(directory, rows, words, path.name)


def _read_header(lines: Lines) -> _Header:
    """The three numbers at the beginning."""
    return _Header(
        _header_line(lines, 1, "the number of documents, D", 1),
        _header_line(lines, 2, "the number of words, W", 1),
        _header_line(lines, 3, "the number of entries, NNZ", 0),
    )


def _header_line(lines: Lines, number: int, meaning: str, least: int) -> int:
    line = lines.line()
    if line is None:
        raise lines.error(f"missing; must be {meaning}", number)
    if not re.fullmatch(rb"\s*[0-9]{1,18}\s*", line):
        raise lines.error(f"{shown(line)}: must be {meaning}", number)
    most = _LARGEST_NUMBER if least else 10**18
    if not least <= int(line) <= most:
        raise lines.error(f"{int(line)}: must be {meaning}, from {least} to {most}", number)
    return int(line)


def _read_entries(lines: Lines, header: _Header, entries: Entries) -> tuple[NDArray[np.int64], bool]:
    """Write the entries to files as they come.

    Returns:
        How many each document has [documents], and whether they are sorted and none is repeated.
    """
    parse = compiled(parse_entries)
    most = np.array([header.documents, header.words, LARGEST_COUNT])
    rows = np.zeros(header.documents, np.int64)
    last = np.array([-1, -1, 1])
    with (
        growing_array(entries.documents, np.int32) as documents,
        growing_array(entries.words, np.int32) as words,
        growing_array(entries.counts, np.int32) as counts,
    ):
        for block in lines.blocks():
            found = np.empty((3, len(block) // _SHORTEST_LINE + 1), np.int32)
            n, wrong = parse(np.frombuffer(block, np.uint8), most, rows, found, last)
            if words.length + n > header.entries:
                surplus = _line_of_entry(block, header.entries - words.length)
                raise lines.error(f"more entries than the {header.entries} of line 3", lines.before + surplus + 1)
            if wrong >= 0:
                raise lines.error(_fault(block.split(b"\n")[wrong], header), lines.before + wrong + 1)
            for array, values in zip((documents, words, counts), found[:, :n], strict=True):
                array.append(values)
        if words.length < header.entries:
            raise lines.error(f"NNZ = {header.entries}: the file has {words.length} entries", 3)
    return rows, bool(last[2])


def _line_of_entry(block: bytes, entry: int) -> int:
    """Lines before the one with this entry, from 0, of a block."""
    with_entries = [number for number, line in enumerate(block.split(b"\n")) if line.strip()]
    return with_entries[entry]


def _fault(line: bytes, header: _Header) -> str:
    """What is wrong with a line that could not be read."""
    fields = line.split()
    if len(fields) == 3:
        for name, field, most in zip(("document", "word", "count"), fields, (*header[:2], LARGEST_COUNT), strict=True):
            if not re.fullmatch(rb"-?[0-9]+", field):
                return f"{name} = {shown(field)}: must be an integer"
            digits = field.lstrip(b"0")[:20]  # as many as tell that it is too large
            if not 1 <= int(digits or b"0") <= most:
                return f"{name} = {field.decode()[:20]}{'...' * (len(field) > 20)}: must be from 1 to {most}"
    return f"{shown(line)}: must be three numbers: document, word and count"
