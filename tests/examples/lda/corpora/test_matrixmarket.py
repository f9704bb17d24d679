import gzip
import sys

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from examples.lda.corpora import open_corpus
from tests.examples.lda.corpora.reference import documents_of, message_of, write_vocabulary

INTEGERS = "%%MatrixMarket matrix coordinate integer general\n"
REALS = "%%MatrixMarket matrix coordinate real general\n"


@pytest.fixture
def read(tmp_path):
    def read(content, name="x.mtx", V=3):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return open_corpus(str(path), write_vocabulary(tmp_path / "vocab.txt", V), cache=tmp_path / "cache")

    return read


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [np.int32, np.float64])
def test_what_scipy_writes_is_read(read, tmp_path, packed, dtype):
    dense = np.array([[0, 3, 1], [0, 0, 0], [2, 0, 0], [0, 0, 40]], dtype)
    scipy.io.mmwrite(tmp_path / "written.mtx", scipy.sparse.csr_matrix(dense))
    content = (tmp_path / "written.mtx").read_bytes()
    corpus = read(gzip.compress(content), "x.mtx.gz") if packed else read(content)
    assert documents_of(corpus) == [[(1, 3), (2, 1)], [], [(0, 2)], [(2, 40)]]
    assert [corpus.indptr.dtype, corpus.words.dtype, corpus.counts.dtype] == [np.int64, np.int32, np.int32]


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        (INTEGERS + "2 3 3\n2 3 5\n1 2 1\n2 1 4\n", [[(1, 1)], [(0, 4), (2, 5)]]),
        (INTEGERS + "2 3 3\n2 3 5\n1 2 0\n2 3 4\n", [[], [(2, 9)]]),
        ("%%MatrixMarket matrix coordinate pattern general\n1 3 2\n1 3\n1 1\n", [[(0, 1), (2, 1)]]),
        ("%%MatrixMarket matrix array integer general\n1 3\n4\n0\n5\n", [[(0, 4), (2, 5)]]),
    ],
)
def test_unsorted_repeated_zero_and_dense_entries(read, content, documents):
    assert documents_of(read(content)) == documents


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a whole MatrixMarket file: Line 1: Not a Matrix Market file. Missing banner."),
        (INTEGERS + "2 3 2\n1 1 4\n3 1 1\n", "not a whole MatrixMarket file: Line 4: Row index out of bounds"),
        (INTEGERS + "2 3 3\n1 1 4\n2 1 1\n", "not a whole MatrixMarket file: Truncated file. "),
        (INTEGERS + f"2 3 1\n1 1 {'9' * 30}\n", "not a whole MatrixMarket file: Line 3: Integer out of range."),
        (gzip.compress(INTEGERS.encode())[:-10], "not a whole MatrixMarket file: "),
        (INTEGERS + "2 3 1\n1 2 -4\n", "row 1, column 2: -4: must be an integer from 0 to 2147483647"),
        (INTEGERS + "2 3 2\n1 1 1\n1 2 2147483648\n", "row 1, column 2: 2147483648: must be"),
        (INTEGERS + "2 3 2\n2 3 2147483647\n2 3 1\n", "row 2, column 3: 2147483648: must be"),
        (REALS + "2 3 1\n1 2 0.5\n", "row 1, column 2: 0.5: must be an integer from 0 to 2147483647"),
        (REALS + "2 3 1\n2 3 nan\n", "row 2, column 3: nan: must be"),
        (REALS + "2 3 1\n2 3 inf\n", "row 2, column 3: inf: must be"),
        ("%%MatrixMarket matrix coordinate complex general\n1 3 1\n1 1 1 1\n", "a matrix of complex numbers"),
    ],
)
def test_error_names_the_place(read, tmp_path, content, message):
    assert message_of(read, content).startswith(f"{tmp_path / 'x.mtx'}: {message}")
    assert list((tmp_path / "cache").iterdir()) == []


def test_words_must_be_as_many_as_columns(read, tmp_path):
    assert message_of(read, INTEGERS + "2 3 1\n1 1 4\n", V=2) == (
        f"{tmp_path / 'vocab.txt'}: has 2 words; must have 3, the columns of {tmp_path / 'x.mtx'}"
    )


def test_without_scipy(read, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert message_of(read, INTEGERS) == f"{tmp_path / 'x.mtx'}: needs scipy: pip install 'hsa2c[lda]'"
