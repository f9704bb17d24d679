"""Document completion against slow loops, and what must hold of any measure of topics."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.examples.lda.dpsvi import Model
from hsa2c.examples.lda.perplexity import HeldOut, document_topics
from tests.examples.lda.reference import completion_slowly, corpus_of, documents_of, e_step_slowly

IDS = np.arange(60, dtype=np.int32)


def model(mean=False, **changes):
    values = {"K": 5, "alpha": 0.15, "eta0": 0.2, "mean": mean, "tolerance": 1e-3, "most_iterations": 100}
    return Model(**values | changes)


def counts_like(topics, tokens=4000.0):
    """x = lambda - eta0, [V, K], of topics that have been seen so often."""
    return np.ascontiguousarray(tokens * topics.T, np.float32)


def halves(held_out):
    """The halves of its documents, as lists of (word, count)."""
    whole = held_out.whole
    found = []
    for counts in (held_out.given.counts, held_out.asked):
        found.append(
            [
                [
                    (int(whole.rows[whole.local[i]]), int(counts[i]))
                    for i in range(whole.starts[d], whole.starts[d + 1])
                    if counts[i]
                ]
                for d in range(whole.documents)
            ]
        )
    return found


# Perplexity


@pytest.mark.parametrize("mean", [False, True])
def test_perplexity_is_document_completion(planted, mean):
    x = np.random.default_rng(0).gamma(0.5, 8.0, (planted.V, 5)).astype(np.float32)
    held_out = HeldOut(planted.corpus, IDS[:25], tolerance=0.0, most_iterations=30)
    lam = x.T.astype(np.float64) + 0.2
    topics = lam / lam.sum(axis=1, keepdims=True)
    slow = completion_slowly(*halves(held_out), topics, 0.15, most=30, mean=mean)
    score = held_out.score(x, model(mean))
    assert score.perplexity == pytest.approx(slow, rel=1e-5)
    assert score.documents == 25
    assert score.tokens == held_out.tokens == sum(count for half in halves(held_out)[1] for _, count in half)
    if not mean:
        assert held_out.perplexity_of(topics.astype(np.float32), 0.15) == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("mean", [False, True])
def test_uniform_topics_have_a_perplexity_of_V(planted, mean):
    held_out = HeldOut(planted.corpus, IDS)
    assert held_out.score(np.full((planted.V, 5), 3.0, np.float32), model(mean)).perplexity == pytest.approx(
        planted.V, rel=1e-5
    )
    assert held_out.score(np.zeros((planted.V, 5), np.float32), model(mean)).perplexity == pytest.approx(
        planted.V, rel=1e-5
    )


def test_a_document_that_one_topic_explains_by_hand():
    """One topic with probabilities 1/2 and 1/2: whatever the halves are, 2."""
    held_out = HeldOut(corpus_of([[(0, 3), (1, 5)]], 2), np.array([0], np.int32))
    beta = np.full((2, 2), 0.5, np.float32)
    assert held_out.perplexity_of(beta, 0.1) == pytest.approx(2.0)
    half = np.array([[1 - 1e-7, 1e-7], [1e-7, 1 - 1e-7]], np.float32)
    sure = HeldOut(corpus_of([[(0, 50)]], 2), np.array([0], np.int32))  # 25 tokens tell the topic: (25 + a) / (25 + 2a)
    assert sure.perplexity_of(half, 0.1) == pytest.approx(25.2 / 25.1, rel=1e-4)


def test_true_topics_beat_others_and_come_near_to_the_entropy(planted):
    random = np.random.default_rng(0)
    held_out = HeldOut(planted.corpus, np.arange(400, dtype=np.int32))

    def score(topics):
        return held_out.score(counts_like(topics), model()).perplexity

    true = score(planted.topics)
    assert true < 0.6 * planted.unigram
    assert true < score(0.8 * planted.topics + 0.2 / planted.V) < planted.V
    assert true < score(random.dirichlet(np.full(planted.V, 0.05), 5))
    assert true == pytest.approx(score(planted.topics[::-1]), rel=1e-4), "topics have no order"


def test_score_takes_a_flat_vector_and_negative_entries_as_0(planted):
    x = np.random.default_rng(1).gamma(0.5, 8.0, (planted.V, 5)).astype(np.float32)
    x[np.random.default_rng(2).random(x.shape) < 0.2] = -30.0
    held_out = HeldOut(planted.corpus, IDS)
    score = held_out.score(x.reshape(-1), model())
    assert score == held_out.score(np.maximum(x, 0), model())
    assert score != held_out.score(np.abs(x), model())
    assert (x < 0).any(), "v is not changed"


# Halves


@settings(max_examples=50, deadline=None)
@given(
    documents=st.lists(
        st.dictionaries(st.integers(0, 6), st.integers(1, 9), max_size=7).map(lambda d: sorted(d.items())), max_size=6
    ),
    seed=st.integers(0, 1000),
)
def test_halves_are_all_tokens_and_the_first_is_the_smaller(documents, seed):
    corpus = corpus_of(documents, 7)
    held_out = HeldOut(corpus, np.arange(len(documents), dtype=np.int32), seed=seed)
    kept = [document for document in documents if sum(count for _, count in document) > 1]
    given_, asked = ([dict(half) for half in part] for part in halves(held_out))
    assert len(given_) == len(asked) == len(kept)
    for document, first, second in zip(kept, given_, asked, strict=True):
        assert {word: first.get(word, 0) + second.get(word, 0) for word, _ in document} == dict(document)
        assert sum(first.values()) == sum(dict(document).values()) // 2
    assert held_out.tokens == sum(sum(second.values()) for second in asked)


def test_halves_are_those_of_the_seed(planted):
    first, again, other = (halves(HeldOut(planted.corpus, IDS, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_each_token_is_as_likely_in_either_half():
    """500 documents of 40 and 20 tokens of two words: of the first, as many as 30 drawn out of the 60 have."""
    held_out = HeldOut(corpus_of([[(0, 40), (1, 20)]] * 500, 2), np.arange(500, dtype=np.int32))
    first = np.array([dict(half)[0] for half in halves(held_out)[0]])
    variance = 30 * (40 / 60) * (20 / 60) * (30 / 59)
    assert abs(first.mean() - 20) < 4 * math.sqrt(variance / 500)
    assert first.var() == pytest.approx(variance, rel=0.3)


def test_documents_of_one_token_are_left_out():
    corpus = corpus_of([[(0, 1)], [(0, 1), (1, 1)], [(1, 1)], [(0, 5)]], 2)
    held_out = HeldOut(corpus, np.arange(4, dtype=np.int32))
    assert held_out.tokens == 1 + 3
    score = held_out.score(np.ones((2, 5), np.float32), model())
    assert (score.documents, score.tokens) == (2, 4)
    assert HeldOut(corpus, np.array([0, 2], np.int32)).tokens == 0


# Topics of documents


@pytest.mark.parametrize("mean", [False, True])
def test_document_topics_are_those_of_the_local_step(planted, mean):
    x = counts_like(planted.topics)
    theta = document_topics(planted.corpus, IDS[:15], x, model(mean))
    assert theta.shape == (15, 5)
    np.testing.assert_allclose(theta.sum(axis=1), 1, rtol=1e-5)
    lam = x.T.astype(np.float64) + 0.2
    if mean:
        topics = lam / lam.sum(axis=1, keepdims=True)
    else:
        from scipy.special import psi

        topics = np.exp(psi(lam) - psi(lam.sum(axis=1, keepdims=True)))
    gamma, _, _ = e_step_slowly(
        documents_of(planted.corpus, IDS[:15]), topics, 0.15, tolerance=1e-6, most=300, mean=mean
    )
    np.testing.assert_allclose(theta, gamma / gamma.sum(axis=1, keepdims=True), atol=2e-3)


def test_document_topics_of_words_so_rare_that_float32_ends():
    """exp(psi(0.009)) is e^-111: more than the other topics' e^-200, and so the word's topic."""
    K = 200
    x = np.zeros((1000, K), np.float32)
    x[0, 3], x[1, 7], x[2, 7] = 50, 20, 0.004
    theta = document_topics(
        corpus_of([[(2, 6)]], 1000), np.array([0], np.int32), x, model(K=K, alpha=1 / K, eta0=1 / K)
    )
    assert theta[0, 7] > 0.8
