"""The compiled local step against slow loops, and against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import psi

from hsa2c.examples.lda import estep
from hsa2c.examples.lda.batches import Batch, Gatherer
from hsa2c.examples.lda.dpsvi import LocalStep, Model, UHat
from hsa2c.examples.lda.estep import e_step, exp_psi, expected_topics, lift_faint
from tests.examples.lda.planted import Planted
from tests.examples.lda.reference import corpus_of, documents_of, e_step_slowly, expected_topics_slowly

VARIANTS = pytest.mark.parametrize("mean", [False, True], ids=["variational", "posterior-mean"])


def batch_of(documents):
    """Documents as lists of (row, count) as a batch whose words are the rows themselves."""
    flat = [entry for document in documents for entry in document]
    starts = np.cumsum([0, *map(len, documents)])
    local, counts = np.array(flat, np.int32).reshape(-1, 2).T
    R = int(local.max()) + 1 if local.size else 0
    return Batch(starts, np.ascontiguousarray(local), np.ascontiguousarray(counts), np.arange(R, dtype=np.int32))


def run(batch, beta, alpha, *, tolerance=0.0, most=100, mean=False, prune=False):
    """gamma, statistics and iterations of `e_step` on topics [K, R]."""
    rows = np.ascontiguousarray(np.asarray(beta, np.float32).T)
    gamma = np.ones((batch.documents, rows.shape[1]), np.float32)
    statistics = np.zeros_like(rows)
    iterations = e_step(
        batch.starts, batch.local, batch.counts, rows, np.float32(alpha), np.float32(tolerance), most, mean, prune,
        gamma, statistics,
    )  # fmt: skip
    return gamma, statistics, iterations


@st.composite
def small_corpora(draw):
    """Up to four documents with words below 8, and as many topics [K, 8] that have all of them."""
    K = draw(st.integers(2, 6))
    entries = st.dictionaries(st.integers(0, 7), st.integers(1, 30), min_size=1, max_size=8)
    documents = [sorted(document.items()) for document in draw(st.lists(entries, min_size=1, max_size=4))]
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    return documents, random.dirichlet(np.full(8, draw(st.sampled_from([0.2, 1.0]))), K) + 1e-6


# exp(psi(x))


@pytest.mark.parametrize(
    ("first", "last", "error"), [(-1.88, -1, 4e-5), (-1, 0, 4e-6), (0, 3, 6e-7), (3, 7, 3e-7)], ids=str
)
def test_exp_psi_is_exp_of_digamma(first, last, error):
    """psi(0.0132) is -76, and the exponential of a rounded 76 is off by 76 roundings; below, float32 ends."""
    x = np.logspace(first, last, 3000).astype(np.float32)
    right = np.exp(psi(x.astype(np.float64)))
    alone = np.array([exp_psi(value) for value in x], np.float64)
    assert np.abs(alone / right - 1).max() < error
    out = np.empty((x.size, 1), np.float32)  # and in a loop with vector instructions
    expected_topics(x[:, None], np.float32(0), np.ones(1, np.float32), False, out)
    assert np.abs(out[:, 0] / (right / np.exp(psi(1.0))) - 1).max() < error + 1e-6


def test_exp_psi_where_float32_ends():
    """The least float32 is 1.4e-45: what is less may be 0, but neither negative nor no number."""
    for x in (1e-2, 5e-3, 1e-4, 1e-30):
        assert abs(float(exp_psi(np.float32(x))) - np.exp(psi(x))) < 3e-45
    assert exp_psi(np.float32(1e9)) == pytest.approx(1e9, rel=1e-6)


def test_what_is_no_number_stays_so():
    """And is no place in a table, which would be the end of the process."""
    x, out = np.full((3, 20), np.nan, np.float32), np.empty((3, 20), np.float32)
    expected_topics(x, np.float32(0.1), np.ones(20, np.float32), False, out)
    assert np.isnan(out).all()
    assert np.isnan(run(batch_of([[(0, 3), (2, 1)]]), out.T, 0.1, prune=True)[0]).all()


@VARIANTS
def test_expected_topics_by_loops(mean):
    random = np.random.default_rng(0)
    x = random.gamma(0.3, 20, (40, 6)).astype(np.float32)
    totals = (x.sum(axis=0) + 0.1 * 1000).astype(np.float32)
    out = np.empty_like(x)
    expected_topics(x, np.float32(0.1), totals, mean, out)
    np.testing.assert_allclose(out.T, expected_topics_slowly(x, 0.1, totals, mean), rtol=1e-5)


# The local step


@VARIANTS
@settings(max_examples=60, deadline=None)
@given(small=small_corpora(), alpha=st.sampled_from([0.05, 0.2, 1.0]), most=st.integers(1, 12))
def test_e_step_is_the_equations(mean, small, alpha, most):
    documents, beta = small
    gamma, statistics, iterations = run(batch_of(documents), beta, alpha, most=most, mean=mean)
    slow_gamma, slow_statistics, _ = e_step_slowly(documents, beta, alpha, tolerance=0.0, most=most, mean=mean)
    np.testing.assert_allclose(gamma, slow_gamma, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(statistics, slow_statistics, rtol=2e-3, atol=1e-4)
    assert iterations == most * len(documents)


@settings(max_examples=60, deadline=None)
@given(small=small_corpora(), mean=st.booleans())
def test_iterations_end_when_gamma_stands_still(small, mean):
    """The mean over topics of the change of gamma is below the tolerance for the first time."""
    documents, beta = small
    tolerance = 1e-2
    _, _, changes = e_step_slowly(documents, beta, 0.2, tolerance=tolerance, most=200, mean=mean)
    close = [change for changed in changes for change in changed if abs(change / tolerance - 1) < 1e-2]
    _, _, iterations = run(batch_of(documents), beta, 0.2, tolerance=tolerance, most=200, mean=mean)
    slow = sum(len(changed) for changed in changes)
    assert abs(iterations - slow) <= len(close)


def test_iterations_are_capped_for_each_document():
    documents = [[(0, 5), (1, 3)], [(1, 1), (2, 9)], [(0, 2)]]
    beta = np.random.default_rng(0).dirichlet(np.ones(3), 4)
    for most in (1, 7):
        assert run(batch_of(documents), beta, 0.1, tolerance=0.0, most=most)[2] == 3 * most
    assert run(batch_of(documents), beta, 0.1, tolerance=1e9, most=7)[2] == 3


@VARIANTS
def test_statistics_of_a_document_sum_to_its_tokens(mean):
    planted = Planted(documents=20)
    beta = planted.topics + 1e-6
    for document in documents_of(planted.corpus):
        words = [word for word, _ in document]
        batch = batch_of([[(n, count) for n, (_, count) in enumerate(document)]])
        gamma, statistics, _ = run(batch, beta[:, words], 0.1, tolerance=1e-3, mean=mean, prune=True)
        counts = [count for _, count in document]
        np.testing.assert_allclose(statistics.sum(axis=1), counts, rtol=1e-5)
        assert gamma.sum() == pytest.approx(5 * 0.1 + sum(counts), rel=1e-5)


def test_statistics_are_added_and_may_be_left_out():
    documents, beta = [[(0, 5), (1, 3)]], np.random.default_rng(0).dirichlet(np.ones(2), 3)
    batch, rows = batch_of(documents), np.ascontiguousarray(beta.T, np.float32)
    gammas, once = [], run(batch, beta, 0.1, most=20)[1]
    for statistics in (np.full((2, 3), 7, np.float32), np.empty((0, 3), np.float32)):
        gamma = np.ones((1, 3), np.float32)
        e_step(batch.starts, batch.local, batch.counts, rows, np.float32(0.1), np.float32(0), 20, False, False, gamma,
               statistics)  # fmt: skip
        gammas.append(gamma)
        if statistics.size:
            np.testing.assert_allclose(statistics, once + 7, rtol=1e-6)
    np.testing.assert_array_equal(*gammas)


@VARIANTS
def test_a_batch_is_its_documents_one_at_a_time(mean, planted):
    beta = planted.topics + 1e-6
    corpus, ids = planted.corpus, np.arange(30, dtype=np.int32)
    gather, together = Gatherer(corpus), np.zeros((corpus.V, 5))
    batch = gather(ids)
    gamma, statistics, iterations = run(batch, beta[:, batch.rows], 0.1, tolerance=1e-3, mean=mean, prune=True)
    alone_gamma, alone_iterations, rows = [], 0, batch.rows.copy()
    for d in ids:
        one = gather(np.array([d], np.int32))
        g, s, i = run(one, beta[:, one.rows], 0.1, tolerance=1e-3, mean=mean, prune=True)
        together[one.rows] += s
        alone_gamma.append(g[0])
        alone_iterations += i
    np.testing.assert_allclose(gamma, alone_gamma, rtol=1e-6)
    np.testing.assert_allclose(statistics, together[rows], rtol=1e-4, atol=1e-5)
    assert iterations == alone_iterations
    assert not together[np.setdiff1d(np.arange(corpus.V), rows)].any()


@VARIANTS
def test_a_word_that_no_topic_has_is_passed_over(mean):
    beta = np.array([[0.5, 0.5, 0.0], [0.1, 0.9, 0.0]])
    gamma, statistics, _ = run(batch_of([[(0, 4), (1, 2), (2, 100)]]), beta, 0.1, mean=mean)
    without, _, _ = run(batch_of([[(0, 4), (1, 2)]]), beta[:, :2], 0.1, mean=mean)
    np.testing.assert_allclose(gamma, without, rtol=1e-6)
    assert np.isfinite(statistics).all()
    np.testing.assert_array_equal(statistics[2], 0)
    alone, _, _ = run(batch_of([[(0, 3)]]), np.zeros((2, 1)), 0.1, mean=mean)
    np.testing.assert_allclose(alone, 0.1)


# Topics that have no part


@pytest.fixture(scope="module")
def many_topics():
    """Documents of one or two of thirty topics, and those topics."""
    planted = Planted(documents=150, K=30, V=400, alpha=0.02, tokens=150)
    return Gatherer(planted.corpus)(np.arange(150, dtype=np.int32)), planted.topics + 1e-7


@pytest.mark.parametrize("alpha", [1 / 30, 0.1])
def test_pruned_statistics_are_the_whole_ones(many_topics, alpha):
    batch, beta = many_topics
    pruned, whole = (run(batch, beta[:, batch.rows], alpha, tolerance=1e-3, prune=prune) for prune in (True, False))
    assert np.abs(pruned[1] - whole[1]).sum() / whole[1].sum() < 1e-6
    assert np.abs(pruned[0] - whole[0]).max() < 1e-4


@pytest.mark.slow
def test_most_topics_are_pruned(many_topics):
    """Else the test before would show nothing."""
    batch, beta = many_topics
    left = []
    for d in range(batch.documents):
        here = slice(batch.starts[d], batch.starts[d + 1])
        local = np.ascontiguousarray(beta[:, batch.rows[batch.local[here]]], np.float32)
        gamma, theta, ratio = np.ones(30, np.float32), np.empty(30, np.float32), np.empty(local.shape[1], np.float32)
        active = np.empty(30, np.int64)
        A, _ = estep.converge(
            local, batch.counts[here], np.float32(1 / 30), np.float32(1e-3), 100, False, True, gamma, theta, active,
            ratio,
        )  # fmt: skip
        left.append(A)
        np.testing.assert_array_equal(np.delete(gamma, active[:A]), np.float32(1 / 30))
    assert np.mean(left) < 10


# Words that no topic has yet


def test_tokens_of_new_words_count_however_small_the_prior():
    """exp(psi(0.005)) is e^-200: the word's tokens are nevertheless shared out, by what else is in its document."""
    for K in (20, 100, 200):
        x = np.zeros((3, K), np.float32)
        x[0, 3], x[1, 5] = 50, 20
        model = Model(K=K, alpha=1 / K, eta0=1 / K, mean=False, tolerance=0.0, most_iterations=30)
        totals = np.linspace(1e6, 1.1e6, K).astype(np.float32)
        s, _ = LocalStep(model)(batch_of([[(0, 2), (1, 3), (2, 4)]]), UHat(x, totals))
        np.testing.assert_allclose(s.sum(axis=1), [2, 3, 4], rtol=1e-5)
        beta = expected_topics_slowly(x, 1 / K, totals, False)
        _, slow, _ = e_step_slowly([[(0, 2), (1, 3), (2, 4)]], beta, 1 / K, tolerance=0.0, most=30, mean=False)
        np.testing.assert_allclose(s, slow, rtol=1e-3, atol=1e-5)


def test_lift_faint_changes_faint_rows_by_a_factor():
    x = np.zeros((4, 100), np.float32)
    x[0, 7], x[2, 8] = 5, 0.03
    totals = np.linspace(100, 1000, 100).astype(np.float32)
    beta = np.empty_like(x)
    expected_topics(x, np.float32(0.01), totals, False, beta)
    before = beta.copy()
    divided = lift_faint(beta, x, 0.01, totals)
    assert (divided < 0).tolist() == [False, True, False, True]
    np.testing.assert_array_equal(beta[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(beta.max(axis=1)[[1, 3]], 1)
    log_beta = psi(x[1].astype(float) + 0.01) - psi(totals.astype(float))
    np.testing.assert_allclose(np.log(beta[1]) + divided[1], log_beta, rtol=1e-6)


def test_lift_faint_leaves_a_common_prior_alone():
    x, totals = np.zeros((4, 10), np.float32), np.full(10, 1e6, np.float32)
    beta = np.full_like(x, 1e-30)
    assert not lift_faint(beta, x, 0.1, totals).any()
    np.testing.assert_array_equal(beta, np.float32(1e-30))


# scikit-learn


def test_e_step_is_scikit_learns(planted):
    from sklearn.decomposition import LatentDirichletAllocation

    corpus, K, eta0 = planted.corpus, 5, 0.2
    lam = np.random.default_rng(3).gamma(1.0, 10.0, (K, corpus.V)) + eta0
    other = LatentDirichletAllocation(K, doc_topic_prior=0.2, max_doc_update_iter=25, mean_change_tol=0.0)
    other._init_latent_vars(corpus.V)
    other.components_ = lam
    other.exp_dirichlet_component_ = np.exp(psi(lam) - psi(lam.sum(axis=1, keepdims=True)))
    X = planted.counts[:60].astype(np.float64)
    gamma, s = other._e_step(X, cal_sstats=True, random_init=False)

    batch = Gatherer(corpus)(np.arange(60, dtype=np.int32))
    x = np.ascontiguousarray(lam.T[batch.rows] - eta0, np.float32)
    beta, totals = np.empty_like(x), lam.sum(axis=1).astype(np.float32)
    expected_topics(x, np.float32(eta0), totals, False, beta)
    mine = run(batch, beta.T, 0.2, tolerance=0.0, most=25)
    np.testing.assert_allclose(mine[0], gamma, rtol=2e-4, atol=1e-4)
    np.testing.assert_allclose(mine[1], s.T[batch.rows], rtol=2e-3, atol=2e-4)

    model = Model(K=K, alpha=0.2, eta0=eta0, mean=False, tolerance=0.0, most_iterations=25)
    pruned, _ = LocalStep(model)(batch, UHat(x, totals))
    assert np.abs(pruned - s.T[batch.rows]).sum() / s.sum() < 1e-4


def test_corpus_of_and_documents_of_are_each_others_reverse():
    documents = [[(0, 2), (3, 1)], [], [(1, 1)]]
    assert documents_of(corpus_of(documents, 4)) == documents
