"""Gathering batches against plain Python, and dealing documents to processes."""

from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.examples.lda.batches import Gatherer, endless
from hsa2c.examples.lda.corpora import open_corpus
from tests.examples.lda.reference import corpus_of, documents_of

documents = st.lists(st.dictionaries(st.integers(0, 11), st.integers(1, 9), max_size=12), min_size=1, max_size=8)


def told(batch):
    """What a batch says, as lists of (word, count); copied."""
    return [
        [
            (int(batch.rows[batch.local[i]]), int(batch.counts[i]))
            for i in range(int(batch.starts[d]), int(batch.starts[d + 1]))
        ]
        for d in range(batch.documents)
    ]


@settings(max_examples=60, deadline=None)
@given(documents=documents, choices=st.lists(st.lists(st.integers(0, 7), max_size=6), min_size=1, max_size=5))
def test_gatherer_gives_the_documents_asked_for(documents, choices):
    """One after the other, larger and smaller, with a document twice or none: buffers are used again."""
    corpus = corpus_of([sorted(document.items()) for document in documents], 12)
    gather = Gatherer(corpus)
    for choice in choices:
        ids = np.array([d % len(documents) for d in choice], np.int32)
        batch = gather(ids)
        assert told(batch) == documents_of(corpus, ids)
        assert sorted(batch.rows.tolist()) == sorted({word for document in told(batch) for word, _ in document})
        assert batch.starts.tolist() == np.cumsum([0, *(len(documents[d]) for d in ids)]).tolist()
        assert batch.local.size == batch.counts.size == batch.starts[-1]


def test_types_are_those_the_kernels_were_compiled_for():
    batch = Gatherer(corpus_of([[(0, 1), (2, 3)]], 3))(np.array([0], np.int32))
    assert [array.dtype for array in batch] == [np.int64, np.int32, np.int32, np.int32]
    assert all(array.flags["C_CONTIGUOUS"] for array in batch)


def test_buffers_are_used_again_and_grow_when_they_must():
    corpus = corpus_of([[(w, 1) for w in range(5)], [(w, 2) for w in range(40)], [(3, 7)]], 40)
    gather = Gatherer(corpus)
    small, again = gather(np.array([0], np.int32)), gather(np.array([2], np.int32))
    assert np.shares_memory(small.counts, again.counts)
    large = gather(np.array([1, 1, 1], np.int32))
    assert told(large) == documents_of(corpus, [1, 1, 1])
    assert told(gather(np.array([0], np.int32))) == documents_of(corpus, [0])


def test_gatherer_reads_maps_of_files(planted, tmp_path):
    counts, words = planted.write_uci(tmp_path / "source")
    corpus = open_corpus(str(counts), words, cache=tmp_path / "cache", progress=False)
    assert not corpus.words.flags.writeable
    ids = np.array([5, 399, 0, 17], np.int32)
    ids.flags.writeable = False
    assert told(Gatherer(corpus)(ids)) == documents_of(planted.corpus, ids)


# Dealing


def passes(D, size, parts, number, seed=3):
    """Batches of each process in each of so many passes: [pass][process]."""
    ids = np.arange(100, 100 + D, dtype=np.int32)
    dealt = []
    for part in range(parts):
        mine = len(range(part, D, parts))
        batches = -(-mine // size)
        stream = endless(ids, size, seed=seed, part=part, parts=parts)
        dealt.append([[batch.tolist() for batch in islice(stream, batches)] for _ in range(number)])
    return [[dealt[part][n] for part in range(parts)] for n in range(number)]


@settings(max_examples=60, deadline=None)
@given(D=st.integers(1, 40), size=st.integers(1, 12), parts=st.integers(1, 5))
def test_each_document_is_in_each_pass_once(D, size, parts):
    if parts > D:
        parts = D
    for dealt in passes(D, size, parts, 3):
        everything = [document for batches in dealt for batch in batches for document in batch]
        assert sorted(everything) == list(range(100, 100 + D))
        for batches in dealt:
            assert all(len(batch) == size for batch in batches[:-1])
            assert 1 <= len(batches[-1]) <= size


def test_each_pass_has_an_order_of_its_own():
    first, second, third = passes(50, 8, 2, 3)
    assert first != second != third != first
    assert [sorted(chain(*batches)) for batches in first] != [sorted(chain(*batches)) for batches in second]


def test_order_is_that_of_the_seed():
    assert passes(50, 8, 2, 2) == passes(50, 8, 2, 2)
    assert passes(50, 8, 2, 2) != passes(50, 8, 2, 2, seed=4)


@pytest.mark.parametrize("part", range(7))
def test_more_processes_than_documents_have_something_to_do(part):
    ids = np.array([4, 9, 11], np.int32)
    for batch in islice(endless(ids, 64, seed=1, part=part, parts=7), 10):
        assert batch.size == 1
        assert batch[0] in ids


def test_batches_are_ids_that_a_gatherer_takes():
    batch = next(endless(np.arange(10, dtype=np.int32), 4, seed=0, part=1, parts=2))
    assert batch.dtype == np.int32
    corpus = corpus_of([[(d, 1)] for d in range(10)], 10)
    assert told(Gatherer(corpus)(batch)) == [[(int(d), 1)] for d in batch]
