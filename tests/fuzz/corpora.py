"""Readers of corpora: files of counts, and vocabularies."""

import numpy as np

from examples.lda.corpora import open_corpus
from tests.fuzz.harness import Reader

WORDS = b"ant\nbee\ncow\ndog\n"


def _read(path, vocabulary):
    corpus = open_corpus(str(path), vocabulary, cache=path.parent / "cache", progress=False)
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


READERS = {
    "uci": Reader(
        ".txt",
        [b"3\n4\n5\n1 1 2\n1 4 1\n3 1 7\n3 2 1\n3 3 10\n", b"2\n4\n3\n2 1 1\n1 4 2\n2 1 5\n"],
        read_counts,
    ),
    "lda-c": Reader(".ldac", [b"2 0:2 3:1\n0\n3 0:7 1:1 2:10\n", b"1 3:1\n2 1:4 1:5\n"], read_counts),
    "vocabulary": Reader(".txt", [WORDS, b"ant\r\nb e\r\nna\xc3\xafve\r\nx\r\n"], read_words),
}
