import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hsa2c.examples.lda.corpora import Corpus, split
from tests.examples.lda.corpora.reference import message_of


def corpus_of(lengths):
    """A corpus whose documents have so many words each."""
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ones = np.ones(indptr[-1], np.int32)
    return Corpus(indptr, ones * 0, ones, ["w"], "letters", "")


HUNDRED = corpus_of([1] * 100)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(0, 9), st.integers(0, 9), st.integers(0, 99))
def test_parts_are_all_that_is_not_empty_each_once(lengths, validation, test, seed):
    filled = [document for document, length in enumerate(lengths) if length]
    assume(validation + test < len(filled))
    parts = split(corpus_of(lengths), validation=validation, test=test, seed=seed)
    assert (len(parts.validation), len(parts.test)) == (validation, test)
    for part in (parts.training, parts.validation, parts.test):
        assert part.dtype == np.int32
        assert part.tolist() == sorted(part)
    assert sorted([*parts.training, *parts.validation, *parts.test]) == filled


@pytest.mark.parametrize(
    ("size", "documents"), [(0, 0), (1, 1), (1.0, 1), (7, 7), (40.0, 40), (0.1, 10), (0.256, 26), (0.001, 1), (0.0, 0)]
)
def test_a_size_is_a_number_or_a_share(size, documents):
    assert len(split(HUNDRED, validation=size, test=1, seed=1).validation) == documents
    assert len(split(HUNDRED, validation=1, test=size, seed=1).test) == documents


def test_a_share_is_of_the_documents_that_are_not_empty():
    assert len(split(corpus_of([0] * 900 + [1] * 100), validation=0.1, test=0.2, seed=1).test) == 20


def test_the_seed_decides_and_nothing_else():
    first, again, other = (split(HUNDRED, validation=0.2, test=0.2, seed=seed) for seed in (1, 1, 2))
    assert first.test.tolist() == again.test.tolist() != other.test.tolist()
    assert first.validation.tolist() == again.validation.tolist() != other.validation.tolist()
    assert first.test.tolist() != list(range(20))


def test_a_part_does_not_depend_on_the_size_of_the_other():
    small, large = (split(HUNDRED, validation=size, test=10, seed=1) for size in (5, 60))
    assert small.test.tolist() == large.test.tolist()
    assert set(small.validation) < set(large.validation)
    small, large = (split(HUNDRED, validation=10, test=size, seed=1) for size in (5, 60))
    assert small.validation.tolist() == large.validation.tolist()
    assert set(small.test) < set(large.test)


@pytest.mark.parametrize("size", [-1, -0.5, 1.5, float("nan"), float("inf")])
def test_what_is_no_size(size):
    assert message_of(split, HUNDRED, validation=size, test=1, seed=1).startswith(f"validation = {size}: ")
    assert message_of(split, HUNDRED, validation=1, test=size, seed=1) == (
        f"test = {size}: must be a number of documents, or a share of them below 1"
    )


@pytest.mark.parametrize(
    ("lengths", "validation", "test", "numbers"),
    [
        ([1] * 10 + [0], 0.5, 5, "5 and 5 of the 10"),
        ([1, 1], 0.1, 0.1, "1 and 1 of the 2"),
        ([1] * 3, 10**9, 0, "1000000000 and 0 of the 3"),
        ([0, 0], 0, 0, "0 and 0 of the 0"),
    ],
)
def test_training_needs_a_document(lengths, validation, test, numbers):
    message = message_of(split, corpus_of(lengths), validation=validation, test=test, seed=1)
    assert message.startswith(f"validation = {validation}, test = {test}: must leave documents for training: {numbers}")
