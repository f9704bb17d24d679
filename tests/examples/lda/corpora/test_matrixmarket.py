import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.examples.lda.corpora import open_corpus
from tests.examples.lda.corpora.reference import LARGEST, documents_of, message_of, write_vocabulary

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


@st.composite
def matrices(draw):
    """Counts, in a square matrix half the time; some symmetric, which scipy then writes as such."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    columns = rows if draw(st.booleans()) else columns
    counts = st.sampled_from([0, 0, 0, 1, 2, 12, 1000, 12345678, LARGEST // 2])
    matrix = np.array(draw(st.lists(counts, min_size=rows * columns, max_size=rows * columns))).reshape(rows, columns)
    return np.tril(matrix) + np.tril(matrix, -1).T if rows == columns and draw(st.booleans()) else matrix


@settings(deadline=None)
@given(
    matrices(),
    st.sampled_from([np.int32, np.uint32, np.float64]),
    st.sampled_from([None, 12, 17]),
    st.sampled_from(["AUTO", "general"]),
    st.booleans(),
)
def test_any_matrix_is_read_as_scipy_writes_it(matrix, dtype, precision, symmetry, dense):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.mtx")
        written = matrix.astype(dtype) if dense else scipy.sparse.coo_matrix(matrix.astype(dtype))
        scipy.io.mmwrite(path, written, precision=precision, symmetry="general" if dense else symmetry)
        vocabulary = write_vocabulary(Path(folder, "v"), matrix.shape[1])
        corpus = open_corpus(str(path), vocabulary, cache=Path(folder, "cache"))
    assert documents_of(corpus) == [[(w, c) for w, c in enumerate(row) if c] for row in matrix.tolist()]


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        (INTEGERS + "2 3 3\n2 3 5\n1 2 1\n2 1 4\n", [[(1, 1)], [(0, 4), (2, 5)]]),
        (INTEGERS + "2 3 3\n2 3 5\n1 2 0\n2 3 4\n", [[], [(2, 9)]]),
        ("%%MatrixMarket matrix coordinate pattern general\n1 3 2\n1 3\n1 1\n", [[(0, 1), (2, 1)]]),
        ("%%MatrixMarket matrix array integer general\n1 3\n4\n0\n5\n", [[(0, 4), (2, 5)]]),
        (
            "%%MatrixMarket matrix array real general\n2 3\n4\n0\n\n5.0\n1e0\n0\n7\n",
            [[(0, 4), (1, 5)], [(1, 1), (2, 7)]],
        ),
        ("%%MatrixMarket matrix coordinate pattern symmetric\n3 3 2\n1 1\n3 1\n", [[(0, 1), (2, 1)], [], [(0, 1)]]),
        (INTEGERS.upper() + "1 3 1\n1 1 3\n", [[(0, 3)]]),
        ("\ufeff\n" + REALS + "% by hand\n\n%\n1 3 2  \n\n1 1 3.0\r\n 1\t2 4\n\n", [[(0, 3), (1, 4)]]),
    ],
)
def test_the_format_s_other_forms(read, content, documents):
    assert documents_of(read(content)) == documents


def test_what_gensim_writes_is_read(read):
    content = REALS + "2 3 3                                             \n1 1 2\n1 3 1.0\n2 2 3\n"
    assert documents_of(read(content, "corpus.mm")) == [[(0, 2), (2, 1)], [(1, 3)]]


BANNER = "must be a line such as %%MatrixMarket matrix coordinate integer general"
COUNT = "must be a whole number from 0 to 2147483647"
FIELDS = "must be one of integer, unsigned-integer, real, double, pattern"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", f"line 1: '': {BANNER}"),
        ("<!DOCTYPE html>\n<html>\n", f"line 1: '<!DOCTYPE html>': {BANNER}"),
        ("2\n3\n1\n1 1 1\n", f"line 1: '2': {BANNER}"),
        ("%%MatrixMarket matrix\n2 3 1\n1 1 1\n", f"line 1: '%%MatrixMarket matrix': {BANNER}"),
        (INTEGERS.replace("integer", "complex"), f"line 1: field = 'complex': {FIELDS}"),
        (INTEGERS.replace("general", "skew-symmetric"), "line 1: symmetry = 'skew-symmetric': must be one of general"),
        (INTEGERS.replace("coordinate integer", "array pattern"), "line 1: pattern, general: an array must be of"),
        (INTEGERS, "line 2: '': must be the numbers of rows, columns, entries"),
        (INTEGERS + "2 3\n", "line 2: '2 3': must be the numbers of rows, columns, entries"),
        (INTEGERS + "2 3 -1\n", "line 2: '2 3 -1': must be the numbers of rows, columns, entries"),
        (INTEGERS + f"2 3 {'9' * 5000}\n", "line 2: '2 3 999"),
        (INTEGERS + "0 3 0\n", "line 2: rows = 0: must be from 1 to 1000055 in a file of this size"),
        (INTEGERS + "2000000 3 0\n", "line 2: rows = 2000000: must be from 1 to 1000061 in a file of this size"),
        (INTEGERS + "2 3 20000000000\n1 1 1\n", "line 2: 20000000000 entries: the file has 1"),
        (INTEGERS.replace("general", "symmetric") + "2 3 1\n", "line 2: columns = 3: must be 2, the rows of a symm"),
        (INTEGERS + "2 3 2\n1 1 4\n3 1 1\n", "line 4: row = 3: must be from 1 to 2"),
        (INTEGERS + "2 3 2\n1 1 4\n1 0 1\n", "line 4: column = 0: must be from 1 to 3"),
        (INTEGERS + "2 3 3\n1 1 4\n2 1 1\n", "line 2: 3 entries: the file has 2"),
        (INTEGERS + "2 3 1\n1 1 4\n2 1 1\n", "line 4: more entries than the 1 of line 2"),
        (INTEGERS + f"2 3 1\n1 1 {'9' * 30}\n", f"line 3: count = {'9' * 20}...: {COUNT}"),
        (INTEGERS + "2 3 1\n1 1 1\0\n", r"line 3: '1 1 1\x00': must be three numbers: row, column and count"),
        (gzip.compress(INTEGERS.encode(), mtime=0)[:-10], "line 1: the file, packed by gzip, ends too early"),
        (INTEGERS + "2 3 1\n1 2 -4\n", f"line 3: count = -4: {COUNT}"),
        (INTEGERS + "2 3 2\n1 1 1\n1 2 2147483648\n", f"line 4: count = 2147483648: {COUNT}"),
        (INTEGERS + "2 3 2\n2 3 2147483647\n2 3 1\n", "document 2: the counts of word 3 (both from 1) add up to"),
        (REALS + "2 3 1\n1 2 0.5\n", f"line 3: count = 0.5: {COUNT}"),
        (REALS + "2 3 1\n2 3 nan\n", "line 3: '2 3 nan': must be three numbers: row, column and count"),
        (REALS.replace("coordinate", "array") + "1 3\n1\n2\n", "line 2: 3 entries: the file has 2"),
        (REALS.replace("coordinate", "array") + "1 3\n1\n2\n3\n4\n", "line 6: more entries than the 3 of line 2"),
        (REALS.replace("real", "pattern") + "1 3 1\n1 1 1\n", "line 3: '1 1 1': must be two numbers: row and column"),
    ],
)
def test_error_names_the_line(read, tmp_path, content, message):
    assert message_of(read, content).startswith(f"{tmp_path / 'x.mtx'}: {message}")
    assert list((tmp_path / "cache").iterdir()) == []


def test_words_must_be_as_many_as_columns(read, tmp_path):
    assert message_of(read, INTEGERS + "2 3 1\n1 1 4\n", V=2) == (
        f"{tmp_path / 'vocab.txt'}: has 2 words; must have 3, see line 2 of {tmp_path / 'x.mtx'}"
    )
