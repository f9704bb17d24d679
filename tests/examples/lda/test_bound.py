"""The variational bound: right, and never lowered by what is to raise it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import psi

from hsa2c.examples.lda.batches import Gatherer
from hsa2c.examples.lda.dpsvi import Model
from hsa2c.examples.lda.estep import e_step, expected_topics
from hsa2c.examples.lda.perplexity import HeldOut, document_bound
from hsa2c.examples.lda.rates import Rate
from hsa2c.examples.lda.svi import svi
from tests.examples.lda.reference import corpus_of, document_bound_slowly, documents_of, topics_bound_slowly

ROUNDING = 2e-6  # of the bound, relative: gamma and beta-tilde are float32


def ascend(batch, beta, alpha, gamma, *, most, tolerance=0.0):
    """Local steps from `gamma`, which is changed; gives back the statistics."""
    statistics = np.zeros_like(beta)
    e_step(
        batch.starts, batch.local, batch.counts, beta, np.float32(alpha), np.float32(tolerance), most, False, False,
        gamma, statistics,
    )  # fmt: skip
    return statistics


def log_topics(lam):
    """E[log beta], [K, V], of lambda [K, V]."""
    return psi(lam) - psi(lam.sum(axis=1, keepdims=True))


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(
        st.dictionaries(st.integers(0, 6), st.integers(1, 20), min_size=1, max_size=7), min_size=1, max_size=3
    ),
    K=st.integers(2, 5),
    alpha=st.sampled_from([0.05, 0.5, 2.0]),
    seed=st.integers(0, 10**6),
)
def test_document_bound_is_the_equation_term_by_term(documents, K, alpha, seed):
    random = np.random.default_rng(seed)
    log_beta = log_topics(random.gamma(0.5, 3.0, (K, 7)) + 0.05)
    corpus = corpus_of([sorted(document.items()) for document in documents], 7)
    batch = Gatherer(corpus)(np.arange(len(documents), dtype=np.int32))
    gamma = random.gamma(1.0, 5.0, (len(documents), K)) + alpha
    fast = document_bound(batch, gamma, np.exp(log_beta[:, batch.rows]).T.astype(np.float32), alpha)
    slow = sum(
        document_bound_slowly(document, gamma[d], log_beta, alpha) for d, document in enumerate(documents_of(corpus))
    )
    assert fast == pytest.approx(slow, rel=1e-5, abs=1e-5)


def test_document_bound_by_hand():
    """One topic: theta is 1, so the bound is log p of the words, and nothing of theta is left to add."""
    batch = Gatherer(corpus_of([[(0, 3), (1, 1)]], 2))(np.array([0], np.int32))
    beta = np.array([[0.5], [0.25]], np.float32)[batch.rows]
    assert document_bound(batch, np.array([[4.7]]), beta, 0.7) == pytest.approx(3 * math.log(0.5) + math.log(0.25))


@settings(max_examples=25, deadline=None)
@given(d=st.integers(0, 399), seed=st.integers(0, 10**6), alpha=st.sampled_from([0.05, 0.2, 1.0]))
def test_each_iteration_raises_a_documents_bound(planted, d, seed, alpha):
    random = np.random.default_rng(seed)
    lam = random.gamma(1.0, 1.0, (5, planted.V)) + 40 * planted.topics[random.permutation(5)] + 0.05
    batch = Gatherer(planted.corpus)(np.array([d], np.int32))
    beta = np.exp(log_topics(lam)[:, batch.rows]).T.astype(np.float32)
    gamma, bounds = np.ones((1, 5), np.float32), []
    for _ in range(25):
        bounds.append(document_bound(batch, gamma.astype(np.float64), beta, alpha))
        ascend(batch, beta, alpha, gamma, most=1)
    gains = np.diff(bounds)
    assert gains.min() > -ROUNDING * abs(bounds[-1])
    assert gains[0] > 0


def test_coordinate_ascent_on_all_documents_never_lowers_the_whole_bound(planted):
    """gamma of all documents, then lambda = eta0 + s: the batch algorithm, which is SVI with eta 1 and one batch."""
    alpha, eta0, K = 0.2, 0.1, 5
    batch = Gatherer(planted.corpus)(np.arange(200, dtype=np.int32))
    lam = np.random.default_rng(0).gamma(100.0, 0.01, (K, planted.V)) + eta0
    gamma, bounds = np.ones((200, K), np.float32), []
    for _ in range(40):
        beta = np.exp(log_topics(lam)[:, batch.rows]).T.astype(np.float32)
        s = ascend(batch, beta, alpha, gamma, most=20)
        bounds.append(document_bound(batch, gamma.astype(np.float64), beta, alpha) + topics_bound_slowly(lam, eta0))
        lam = np.full((K, planted.V), eta0)
        lam[:, batch.rows] += s.T
    assert np.diff(bounds).min() > -ROUNDING * abs(bounds[-1])
    assert bounds[-1] - bounds[0] > 0.1 * abs(bounds[-1]), "it has found something"


def test_svi_on_batches_raises_the_whole_bound_in_the_long_run(planted):
    alpha, eta0, K, V = 0.2, 0.1, 5, planted.V
    model = Model(K=K, alpha=alpha, eta0=eta0, mean=False, tolerance=1e-3, most_iterations=100)
    corpus, everyone = planted.corpus, np.arange(400, dtype=np.int32)
    x = np.random.default_rng(0).gamma(100.0, 0.01, (V, K)).astype(np.float32)

    def whole_bound():
        batch = Gatherer(corpus)(everyone)
        lam = x.T.astype(np.float64) + eta0
        beta = np.exp(log_topics(lam)[:, batch.rows]).T.astype(np.float32)
        gamma = np.ones((400, K), np.float32)
        ascend(batch, beta, alpha, gamma, most=100, tolerance=1e-3)
        return document_bound(batch, gamma.astype(np.float64), beta, alpha) + topics_bound_slowly(lam, eta0)

    random = np.random.default_rng(1)
    batches = (random.choice(everyone, 40, replace=False) for _ in range(200))
    bounds = [whole_bound()]
    for n, _ in enumerate(svi(x, corpus, 400, batches, model, Rate(kappa=0.7, tau0=10.0)), 1):
        if n in (20, 200):
            bounds.append(whole_bound())
    assert bounds == sorted(bounds)
    assert bounds[-1] - bounds[0] > 0.1 * abs(bounds[-1])


# As measured in a run


def test_bound_per_token_is_that_of_whole_documents(planted):
    ids = np.arange(40, 80, dtype=np.int32)
    x = np.random.default_rng(2).gamma(0.5, 8.0, (planted.V, 5)).astype(np.float32)
    model = Model(K=5, alpha=0.2, eta0=0.1, mean=False, tolerance=1e-3, most_iterations=100)
    score = HeldOut(planted.corpus, ids).score(x, model)
    lam = x.T.astype(np.float64) + 0.1
    log_beta = log_topics(lam)
    batch = Gatherer(planted.corpus)(ids)
    gamma = np.ones((40, 5), np.float32)
    beta = np.empty((batch.rows.size, 5), np.float32)
    expected_topics(x[batch.rows], np.float32(0.1), lam.sum(axis=1).astype(np.float32), False, beta)
    ascend(batch, beta, 0.2, gamma, most=200, tolerance=1e-5)
    slow = sum(
        document_bound_slowly(document, gamma[d].astype(np.float64), log_beta, 0.2)
        for d, document in enumerate(documents_of(planted.corpus, ids))
    )
    assert score.bound_per_token == pytest.approx(slow / planted.counts[ids].sum(), rel=1e-4)


def test_bound_is_finite_for_words_that_no_topic_has():
    """exp(psi(1 / 300)) is e^-300, less than float32 holds; its logarithm is nevertheless what it is."""
    K = 300
    x = np.zeros((1000, K), np.float32)
    x[0, 3], x[1, 5] = 50, 20
    model = Model(K=K, alpha=1 / K, eta0=1 / K, mean=False, tolerance=1e-3, most_iterations=100)
    corpus = corpus_of([[(0, 2), (2, 4)], [(1, 5), (2, 1)]], 1000)
    score = HeldOut(corpus, np.arange(2, dtype=np.int32)).score(x, model)
    log_beta = log_topics(x.T.astype(np.float64) + 1 / K)
    guesses = []
    for first in (3, 4):  # the new word has pulled document 0 away from topic 3, or has not
        gamma = np.full((2, K), 1 / K)
        gamma[0, first] += 6
        gamma[1, 5] += 6
        guesses.append(
            sum(
                document_bound_slowly(document, gamma[d], log_beta, 1 / K)
                for d, document in enumerate(documents_of(corpus))
            )
        )
    assert score.bound_per_token == pytest.approx(max(guesses) / 12, rel=0.02)
    assert score.bound_per_token < -5 * 300 / 12
