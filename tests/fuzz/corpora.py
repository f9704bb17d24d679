"""Readers of corpora: files of counts, vocabularies and plain text."""

import numpy as np

from hsa2c.examples.lda.corpora import open_corpus
from tests.fuzz.harness import Reader

WORDS = b"ant\nbee\ncow\ndog\n"


def _read(path, vocabulary=None):
    corpus = open_corpus(str(path), vocabulary, cache=path.with_name("cache"), progress=False)
    indptr, words, counts = (np.asarray(array) for array in (corpus.indptr, corpus.words, corpus.counts))
    assert indptr[0] == 0
    assert (np.diff(indptr) >= 0).all()
    assert indptr[-1] == len(words) == len(counts)
    assert ((words >= 0) & (words < corpus.V)).all()
    assert (counts >= 1).all()
    inner = np.ones(max(len(words) - 1, 0), bool)
    inner[indptr[(indptr > 0) & (indptr < len(words))] - 1] = False
    assert (np.diff(words.astype(np.int64))[inner] > 0).all()
    assert all(word and "\n" not in word for word in corpus.vocabulary)
    assert len(set(corpus.vocabulary)) == corpus.V


def read_counts(path):
    """A file of counts, with a good vocabulary."""
    vocabulary = path.with_name("vocab.txt")
    vocabulary.write_bytes(WORDS)
    _read(path, vocabulary)


def read_words(path):
    """A vocabulary, with a good file of counts."""
    counts = path.with_name("docword.txt")
    counts.write_bytes(b"2\n4\n2\n1 4 2\n2 1 1\n")
    _read(counts, path)


def read_text(path):
    """A document of plain text, with others."""
    folder = path.with_name("letters")
    folder.mkdir()
    path.rename(folder / "a.txt")
    for name in ("b", "c", "d", "e"):
        (folder / f"{name}.txt").write_text("ship rope" if name > "c" else "sea wind")
    _read(folder)


READERS = {
    "matrix-market": Reader(
        ".mtx",
        [
            b"%%MatrixMarket matrix coordinate integer general\n% by hand\n3 4 5\n1 1 3\n1 4 1\n2 2 1\n3 3 2\n3 1 7\n",
            b"%%MatrixMarket matrix coordinate real general\n3 4 3\n1 1 3.0\n2 2 1\n3 3 2e0\n",
            b"%%MatrixMarket matrix coordinate pattern general\n2 4 3\n1 1\n1 4\n2 2\n",
            b"%%MatrixMarket matrix array integer general\n2 4\n1\n0\n0\n2\n0\n0\n3\n1\n",
            b"%%MatrixMarket matrix coordinate integer symmetric\n4 4 3\n1 1 3\n4 1 1\n3 2 2\n",
        ],
        read_counts,
    ),
    "uci": Reader(
        ".txt",
        [b"3\n4\n5\n1 1 2\n1 4 1\n3 1 7\n3 2 1\n3 3 10\n", b"2\n4\n3\n2 1 1\n1 4 2\n2 1 5\n"],
        read_counts,
    ),
    "lda-c": Reader(".ldac", [b"2 0:2 3:1\n0\n3 0:7 1:1 2:10\n", b"1 3:1\n2 1:4 1:5\n"], read_counts),
    "vocabulary": Reader(".txt", [WORDS, b"ant\r\nb e\r\nna\xc3\xafve\r\nx\r\n"], read_words),
    "text": Reader(".txt", [b"The ship, the SHIP!\nna\xc3\xafve rope\n", b"sea\r\nsea sea\twind\n"], read_text),
}
