"""MatrixMarket files: a sparse matrix of counts, documents down, words across."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from examples.lda.corpora.corpus import LARGEST_COUNT
from examples.lda.corpora.extras import extra
from examples.lda.corpora.lines import open_binary, read_vocabulary, unreadable
from examples.lda.corpora.storage import complete, write_entries
from hsa2c.errors import ConfigError


def read_matrix_market(path: Path, vocabulary: Path, directory: Path) -> None:
    """Read a matrix, plain or packed by gzip; counts that are 0 are left out, repeated ones added up.

    Args:
        path: The file.
        vocabulary: A file with as many words as the matrix has columns, one on each line.
        directory: Where the corpus is written.

    Raises:
        ConfigError: One of the two files is not as described; names the line, or the row and column.
    """
    io, sparse = extra("scipy.io", "scipy", str(path)), extra("scipy.sparse", "scipy", str(path))
    words = read_vocabulary(vocabulary)
    try:
        with open_binary(path) as (stream, _):
            matrix = sparse.coo_matrix(io.mmread(stream))
    except (ValueError, TypeError, OverflowError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: not a whole MatrixMarket file: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise unreadable(path, error) from None
    if matrix.dtype.kind == "c":
        raise ConfigError(f"{path}: a matrix of complex numbers: must be counts")
    if matrix.shape[1] != len(words):
        raise ConfigError(f"{vocabulary}: has {len(words)} words; must have {matrix.shape[1]}, the columns of {path}")
    with np.errstate(invalid="ignore"):  # of what is no number
        wrong = np.flatnonzero((matrix.data < 0) | (matrix.data > LARGEST_COUNT) | (matrix.data != matrix.data // 1))
    if len(wrong):
        raise _not_a_count(path, matrix, int(wrong[0]))
    counts = matrix.astype(np.int64).tocsr()
    counts.sum_duplicates()
    counts.eliminate_zeros()
    if counts.nnz and counts.data.max() > LARGEST_COUNT:
        raise _not_a_count(path, counts.tocoo(), int(counts.data.argmax()))
    write_entries(directory, counts.indices, counts.data)
    complete(directory, np.diff(counts.indptr).astype(np.int64), words, path.name)


def _not_a_count(path: Path, matrix: Any, entry: int) -> ConfigError:
    """That an entry of a sparse matrix is no count."""
    row, column, value = matrix.row[entry] + 1, matrix.col[entry] + 1, matrix.data[entry]
    return ConfigError(f"{path}: row {row}, column {column}: {value}: must be an integer from 0 to {LARGEST_COUNT}")
