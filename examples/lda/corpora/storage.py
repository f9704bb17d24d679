"""A corpus as a folder of files that is opened without reading it: three arrays to map, the words, and a record.

The processes of a host that map the same files share their memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsa2c.examples.lda.corpora.corpus import Corpus, content_digest

INDPTR, WORDS, COUNTS, VOCABULARY = FILES = "indptr.npy", "words.npy", "counts.npy", "vocabulary.txt"
RECORD = "corpus.json"  # written last

#: Of the files above, and of what each reader makes of its source: a new one makes all that is stored obsolete.
VERSION = 2


class GrowingArray:
    """A .npy file of one dimension that is appended to: its length is known at the end, and need not fit in memory."""

    def __init__(self, path: Path, dtype: Any) -> None:
        """Create the file; see `growing_array`."""
        self.length = 0
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")
        self._write_header()

    def append(self, values: NDArray[Any]) -> None:
        """Write more values, of the array's type: [n]."""
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self.length += len(values)

    def close(self) -> None:
        """Write the length, and close the file."""
        with self._file:
            end = self._file.tell()
            self._file.seek(0)
            self._write_header()
            # numpy leaves room for the length to grow in a header, for this purpose.
            assert self._file.tell() + self.length * self._dtype.itemsize == end

    def _write_header(self) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, header)


@contextmanager
def growing_array(path: Path, dtype: Any) -> Iterator[GrowingArray]:
    """A `GrowingArray` that is closed at the end of the block, however that comes."""
    array = GrowingArray(path, dtype)
    try:
        yield array
    finally:
        array.close()


def write_entries(directory: Path, words: NDArray[Any], counts: NDArray[Any]) -> None:
    """Store the entries of a corpus that fits in memory; `complete` does the rest. Both [entries]."""
    np.save(directory / WORDS, np.asarray(words, np.int32), allow_pickle=False)
    np.save(directory / COUNTS, np.asarray(counts, np.int32), allow_pickle=False)


def complete(directory: Path, rows: NDArray[np.int64], vocabulary: Sequence[str], name: str) -> None:
    """Store what a corpus needs beside its entries, which are there.

    Args:
        directory: Holds `WORDS` and `COUNTS`.
        rows: Entries of each document. [documents]
        vocabulary: [V]
        name: The corpus's.
    """
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(rows, dtype=np.int64)])
    np.save(directory / INDPTR, indptr, allow_pickle=False)
    (directory / VOCABULARY).write_bytes("".join(f"{word}\n" for word in vocabulary).encode())
    record = {
        "version": VERSION,
        "name": name,
        "digest": content_digest(indptr, map_array(directory / WORDS), map_array(directory / COUNTS), vocabulary),
        "documents": len(rows),
        "V": len(vocabulary),
        "entries": int(indptr[-1]),
        "bytes": {file: (directory / file).stat().st_size for file in FILES},
    }
    (directory / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def load(directory: Path) -> Corpus | None:
    """The corpus in a folder, its arrays mapped, not read; None if there is none or it is damaged."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        if record["version"] != VERSION or record["bytes"] != {f: (directory / f).stat().st_size for f in FILES}:
            return None
        indptr, words, counts = (map_array(directory / file) for file in (INDPTR, WORDS, COUNTS))
        vocabulary = (directory / VOCABULARY).read_bytes().decode().split("\n")[:-1]
        shapes = [(record["documents"] + 1,), (record["entries"],), (record["entries"],), record["V"]]
        types = [np.int64, np.int32, np.int32]
        if [indptr.shape, words.shape, counts.shape, len(vocabulary)] != shapes:
            return None
        if [array.dtype for array in (indptr, words, counts)] != types:
            return None
        return Corpus(indptr, words, counts, vocabulary, str(record["name"]), str(record["digest"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def map_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file, read-only and mapped: pages are read as they are used, and shared."""
    # As a plain array: slices of numpy's class for maps are slow to make. It keeps the map alive.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def read_array(path: Path, block: int) -> Iterator[NDArray[Any]]:
    """The array of a .npy file in blocks of so many values: unlike a map, it never counts as memory in use."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        (length,), _, dtype = np.lib.format.read_array_header_1_0(file)
        for at in range(0, length, block):
            yield np.fromfile(file, dtype, min(block, length - at))
