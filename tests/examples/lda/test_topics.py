"""lambda as scale * L against lambda as a matrix in float64; and the core with it against serial SVI, bit for bit."""

import contextlib
import json
import threading
from itertools import islice

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.worker import worker
from hsa2c.errors import ProblemError
from hsa2c.examples.lda.application import initial_counts
from hsa2c.examples.lda.batches import Gatherer, endless
from hsa2c.examples.lda.dpsvi import DPSVI, LocalStep, Model, Step, UHat
from hsa2c.examples.lda.rates import MOST_ETA, Rate
from hsa2c.examples.lda.svi import svi
from hsa2c.examples.lda.topics import TopicsLayout
from hsa2c.node.memory import SharedVectors
from hsa2c.node.process_pool import ProcessPool
from hsa2c.node.serial import SerialPool
from hsa2c.transport.inprocess import connect
from hsa2c.transport.messages import Limits
from tests.dpsgd.monitors import Record
from tests.dpsgd.waiting import LIMIT_S

pytestmark = pytest.mark.timeout(60)

V, K, ETA0 = 9, 3, 0.25
MODEL = Model(K=5, alpha=0.2, eta0=0.2, mean=False, tolerance=1e-3, most_iterations=100)
SVI_RATE = Rate(kappa=0.7, tau0=10.0)


class Scripted:
    """A problem whose batches and statistics are given: what a layout needs of one."""

    def __init__(self, rows=()):
        self.rows = np.array(rows, np.int32)
        self.etas, self.negative = [], 0

    def next_batch(self):
        return self.rows

    def stepped(self, eta, negative):
        self.etas.append(eta)
        self.negative += negative


class Node:
    """A layout with its shared memory, and as many hands on it as wanted."""

    def __init__(self, rate, *, hands=1, v=None, shape=(V, K)):
        self.layout = TopicsLayout(*shape, ETA0, rate)
        shared = SharedVectors(self.layout.size, self.layout.state_size)
        self.u, self.state = shared.u.numpy(), shared.state
        self.problems = [Scripted() for _ in range(hands)]
        self.hands = [self.layout.attach(shared.u, shared.state, problem) for problem in self.problems]
        self.enter(some_counts(shape) if v is None else v)

    def enter(self, v):
        self.layout.enter(np.asarray(v, np.float32).reshape(-1), self.u)

    @property
    def x(self):
        """lambda - eta0, [V, K], as the master will see it."""
        return self.layout.value(self.u).reshape(self.layout.parts(self.u)[0].shape).copy()

    def read(self, rows, hand=0):
        self.problems[hand].rows = np.array(rows, np.int32)
        return self.hands[hand].read()

    def step(self, rows, statistics, weight, hand=0):
        self.hands[hand].step(Step(np.array(rows, np.int32), np.asarray(statistics, np.float32), weight))


def some_counts(shape=(V, K), seed=0):
    return np.random.default_rng(seed).gamma(0.5, 20.0, shape).astype(np.float32)


# In and out


def test_a_problem_without_batches_is_refused():
    layout = TopicsLayout(V, K, ETA0, SVI_RATE)
    shared = SharedVectors(layout.size, layout.state_size)
    with pytest.raises(ProblemError, match="next_batch"):
        layout.attach(shared.u, shared.state, object())


def test_what_enters_comes_out_bit_for_bit():
    v = some_counts()
    v[2, 1] = 0.0
    v[3, 0] = 1e-38
    node = Node(Rate(eta=0.5), v=v)
    np.testing.assert_array_equal(node.x, v)
    node.step([1], np.ones((1, K)), 3.0)
    assert not np.array_equal(node.x, v)
    node.enter(v)  # the scale is 1 again
    np.testing.assert_array_equal(node.x, v)


def test_sizes():
    layout = TopicsLayout(V, K, ETA0, Rate(eta=0.5))
    assert (layout.size, layout.state_size) == (V * K + K + 2, 1)
    value = layout.value(np.zeros(layout.size, np.float32))
    assert (value.dtype, value.shape) == (np.float32, (V * K,))


def test_read_gives_a_batchs_words_and_all_totals():
    node = Node(Rate(eta=0.1))
    node.step([2, 5], np.ones((2, K)), 10.0)
    u_hat = node.read([7, 2, 0])
    np.testing.assert_allclose(u_hat.x, node.x[[7, 2, 0]], rtol=1e-6)
    np.testing.assert_allclose(u_hat.totals, (node.x.astype(np.float64) + ETA0).sum(axis=0), rtol=1e-5)
    assert u_hat.x.dtype == u_hat.totals.dtype == np.float32


def test_what_was_read_is_private():
    node = Node(Rate(eta=0.5))
    u_hat = node.read([0, 1])
    before = u_hat.x.copy(), u_hat.totals.copy()
    node.step([0, 1], np.ones((2, K)), 100.0)
    np.testing.assert_array_equal(u_hat.x, before[0])
    np.testing.assert_array_equal(u_hat.totals, before[1])
    assert not np.array_equal(node.read([0, 1]).x, before[0])


# Line 6


def closed_form(lam, eta, rows, statistics, weight):
    """lambda <- (1 - eta) lambda + eta (eta0 + (D / G) s): Hoffman et al. 2013, equation 24, on all of lambda."""
    natural = np.full(lam.shape, ETA0)
    for row, s in zip(rows, np.asarray(statistics, np.float32), strict=True):
        natural[row] += weight * s.astype(np.float64)
    return (1 - eta) * lam + eta * natural


def test_step_by_hand():
    """x = 8 and 4; eta 1/4, D / G = 10, s = 2 in row 0: 6 + 5 = 11, and 3."""
    node = Node(Rate(eta=0.25), v=[[8.0], [4.0]], shape=(2, 1))
    node.step([0], [[2.0]], 10.0)
    np.testing.assert_allclose(node.x, [[11.0], [3.0]], rtol=1e-6)


@pytest.mark.parametrize("statistics", [[[2.0]], [[2.0, 1.0], [1.0, 1.0]], [[2.0], [1.0], [1.0]]])
def test_statistics_of_another_shape_than_rows_and_topics_are_refused(statistics):
    node = Node(Rate(eta=0.25), v=[[8.0], [4.0]], shape=(2, 1))
    with pytest.raises(ProblemError, match=r"must be \[2, 1\]$"):
        node.step([0, 1], statistics, 10.0)
    np.testing.assert_array_equal(node.x, [[8.0], [4.0]])
    assert not node.state.any()


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sets(st.integers(0, V - 1), min_size=1), st.floats(0.5, 1e4), st.integers(0, 10**6)),
        min_size=1,
        max_size=20,
    ),
    rate=st.sampled_from([Rate(eta=0.3), Rate(eta=0.01), SVI_RATE, Rate(kappa=0.6, tau0=1.0)]),
)
def test_steps_are_the_closed_form(steps, rate):
    node = Node(rate)
    lam = some_counts().astype(np.float64) + ETA0
    for n, (words, weight, seed) in enumerate(steps):
        rows = sorted(words)
        s = np.random.default_rng(seed).gamma(0.5, 2.0, (len(rows), K))
        node.step(rows, s, weight)
        lam = closed_form(lam, min(rate(n), MOST_ETA), rows, s, weight)
    np.testing.assert_allclose(node.x + ETA0, lam, rtol=2e-5)
    np.testing.assert_allclose(node.read([0]).totals, lam.sum(axis=0), rtol=2e-5)
    assert node.state[0] == len(steps)


def test_a_step_touches_no_other_row_of_L():
    node = Node(Rate(eta=0.2))
    L = node.layout.parts(node.u)[0]
    before = L.copy()
    node.step([1, 4], np.ones((2, K)), 5.0)
    assert np.flatnonzero((before != L).any(axis=1)).tolist() == [1, 4]


def test_totals_are_the_columns_sums_after_many_steps():
    node = Node(Rate(kappa=0.6, tau0=2.0))
    random = np.random.default_rng(0)
    for _ in range(500):
        rows = random.choice(V, random.integers(1, V), replace=False)
        node.step(rows, random.gamma(0.5, 2.0, (rows.size, K)), 50.0)
    np.testing.assert_allclose(node.read([0]).totals, (node.x.astype(np.float64) + ETA0).sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("eta", [1.0, 1 - 1e-7])
def test_a_rate_of_1_forgets_all_but_the_batch_and_stays_finite(eta):
    node, lam = Node(Rate(eta=eta)), some_counts().astype(np.float64) + ETA0
    for n in range(4):  # as many as `MOST_DECAY` allows between two exchanges
        s = np.full((2, K), n + 1.0)
        node.step([n, n + 1], s, 3.0)
        lam = closed_form(lam, 1.0, [n, n + 1], s, 3.0)
        assert np.isfinite(node.u).all()
    np.testing.assert_allclose(node.x + ETA0, lam, rtol=1e-4)
    assert node.problems[0].etas == [MOST_ETA] * 4


def test_rate_falls_with_the_nodes_updates_and_is_scaled_by_the_master():
    node = Node(SVI_RATE, hands=2)
    for hand in (0, 1, 1):
        node.step([0], np.ones((1, K)), 1.0, hand)
    assert node.problems[0].etas == [SVI_RATE(0)]
    assert node.problems[1].etas == [SVI_RATE(1), SVI_RATE(2)]
    node.hands[0].scale_rate(0.5)
    node.step([0], np.ones((1, K)), 1.0)
    assert node.problems[0].etas[-1] == SVI_RATE(3) / 2


# What the master's sum may have made negative


def test_negative_entries_are_read_as_zero_and_counted_once():
    v = some_counts()
    v[[0, 3, 8], [1, 2, 0]] = [-1.0, -1e-30, -100.0]
    node = Node(Rate(eta=0.25), hands=2, v=v)
    np.testing.assert_array_equal(node.x, np.maximum(v, 0))
    np.testing.assert_allclose(
        node.read([0]).totals, (np.maximum(v, 0).astype(np.float64) + ETA0).sum(axis=0), rtol=1e-6
    )
    for hand in (1, 0, 1):
        node.step([0], np.ones((1, K)), 1.0, hand)
    assert [problem.negative for problem in node.problems] == [0, 3]
    node.enter(v)
    node.step([0], np.ones((1, K)), 1.0)
    assert [problem.negative for problem in node.problems] == [3, 3]
    node.enter(some_counts())
    node.step([0], np.ones((1, K)), 1.0)
    assert node.problems[0].negative == 3


@settings(max_examples=60, deadline=None)
@given(
    order=st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=40),
    rate=st.sampled_from([Rate(eta=0.9), Rate(eta=0.05), Rate(kappa=0.6, tau0=1.0)]),
    seed=st.integers(0, 10**6),
)
def test_no_order_of_reads_and_steps_makes_lambda_less_than_the_prior(order, rate, seed):
    """Two processes whose reads and steps interleave: each step is with statistics of an older lambda.

    And as nothing is lost here, where steps are whole, lambda is what the closed form makes of the same statistics.
    """
    random = np.random.default_rng(seed)
    v = some_counts(seed=seed)
    v[random.random(v.shape) < 0.5] = 0
    node, lam, held, done = Node(rate, hands=2, v=v), v.astype(np.float64) + ETA0, [None, None], 0
    for hand, reads in order:
        if reads or held[hand] is None:
            rows = random.choice(V, 3, replace=False)
            u_hat = node.read(rows, hand)
            assert (u_hat.x >= 0).all()
            assert (u_hat.totals >= np.float32(V * ETA0) * (1 - 1e-6)).all()
            shares = (u_hat.x + ETA0) / u_hat.totals
            held[hand] = rows, 20 * shares / shares.sum(axis=1, keepdims=True) * random.integers(0, 2, (3, 1))
        else:
            (rows, s), held[hand] = held[hand], None
            node.step(rows, s, 7.0, hand)
            lam = closed_form(lam, min(rate(done), MOST_ETA), rows, s, 7.0)
            done += 1
        assert (node.x >= 0).all()
    np.testing.assert_allclose(node.x + ETA0, lam, rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    lost=st.lists(st.tuples(st.integers(0, V - 1), st.integers(0, K - 1), st.integers(0, 3)), max_size=10),
    seed=st.integers(0, 10**6),
)
def test_lost_writes_do_not_make_lambda_negative(lost, seed):
    """Whatever an overwriting process puts back, an older L or an older scale, none of it is negative."""
    random = np.random.default_rng(seed)
    node = Node(Rate(eta=0.6))
    L, _, rest = node.layout.parts(node.u)
    history = [(L.copy(), rest[0])]
    for row, k, age in lost:
        rows = random.choice(V, 3, replace=False)
        node.step(rows, random.gamma(0.5, 2.0, (3, K)), 5.0)
        history.append((L.copy(), rest[0]))
        older = history[max(0, len(history) - 1 - age)]
        L[row, k] = older[0][row, k]
        if age % 2:
            rest[0] = older[1]
        assert (node.x >= 0).all()
        assert np.isfinite(node.read([0]).x).all()


# The problem: statistics of a batch, and what is reported


def test_gradient_is_the_local_step_of_the_batch(planted):
    ids, x = np.arange(20, dtype=np.int32), some_counts((planted.V, 5))
    problem = DPSVI(planted.corpus, 400, iter([ids[:8], ids[8:]]), MODEL)
    layout = TopicsLayout(planted.V, 5, 0.2, SVI_RATE)
    shared = SharedVectors(layout.size, 1)
    access = layout.attach(shared.u, shared.state, problem)
    layout.enter(x.reshape(-1), shared.u.numpy())
    iterations = 0
    for batch_ids in (ids[:8], ids[8:]):
        batch = Gatherer(planted.corpus)(batch_ids)
        before = layout.value(shared.u.numpy()).reshape(-1, 5).copy()
        step = problem.gradient(access.read(), lambda: False)
        totals = (before.astype(np.float64) + 0.2).sum(axis=0).astype(np.float32)
        s, done = LocalStep(MODEL)(batch, UHat(before[batch.rows], totals))
        iterations += done
        np.testing.assert_array_equal(step.rows, batch.rows)
        np.testing.assert_allclose(step.statistics, s, rtol=1e-3, atol=1e-4)
        assert step.weight == 400 / batch_ids.size
        access.step(step)
    report = json.loads(json.dumps(problem.report()))
    assert report.items() >= {"documents": 20, "updates": 2, "negative": 0, "eta": SVI_RATE(1)}.items()
    assert report["iterations"] == pytest.approx(iterations, rel=0.05)
    assert set(report["seconds"]) == {"reading", "local_step"}
    assert all(seconds > 0 for seconds in report["seconds"].values())
    again = problem.report()
    assert again == {"documents": 0, "updates": 0, "words": 0, "iterations": 0, "negative": 0, "eta": None} | {
        "seconds": {"reading": 0.0, "local_step": 0.0}
    }


# The core with it


def batches_of(planted, *, part=0, parts=1):
    return endless(np.arange(planted.documents, dtype=np.int32), 32, seed=7, part=part, parts=parts)


def serially(planted, updates, rate=SVI_RATE, model=MODEL):
    """lambda - eta0 after each of so many updates, flat."""
    x = initial_counts(planted.V * 5, 3).reshape(planted.V, 5)
    run = svi(x, planted.corpus, planted.documents, batches_of(planted), model, rate)
    return [x.reshape(-1).copy() for _ in islice(run, updates)]


def through_the_core(planted, make_pool, *, B, rounds, rate=SVI_RATE, model=MODEL):
    """v after each global step of a run with one node, M = 1 and rho = 1; and its reports."""
    layout = TopicsLayout(planted.V, 5, model.eta0, rate)

    def make(index):
        return DPSVI(planted.corpus, planted.documents, batches_of(planted), model)

    pool = make_pool(make, layout)
    v = initial_counts(layout.size - 5 - 2, 3)
    port, (node,) = connect(1, Limits(start_s=LIMIT_S, silence_s=LIMIT_S))
    monitor = Record(stop=lambda record: record.t >= rounds)
    failures = []

    def work():
        try:
            worker(node, pool, B)
        except BaseException as error:
            failures.append(error)
            node.fail(repr(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert port.assemble(monitor)
    master(v, GlobalStep(1.0, 0.0, v.size), port, monitor, 1)
    thread.join(LIMIT_S)
    assert failures == []
    np.testing.assert_array_equal(v, monitor.vs[-1])
    return monitor.vs, monitor.reports()


def serial_pool(make, layout):
    return SerialPool(make(0), layout)


@pytest.fixture
def lock_free_pool():
    """Makes process pools of one process; none is left afterwards."""
    here = psutil.Process()
    before = {child.pid for child in here.children(recursive=True)}
    with contextlib.ExitStack() as stack:

        def make_pool(make, layout):
            return stack.enter_context(contextlib.closing(ProcessPool(make, layout, 1)))

        yield make_pool
    assert {child.pid for child in here.children(recursive=True)} <= before


@pytest.mark.parametrize(
    "rate", [SVI_RATE, Rate(kappa=0.6, tau0=1.0), Rate(eta=0.1)], ids=["svi", "from a rate of 1", "constant"]
)
def test_p_B_M_of_1_is_serial_svi_bit_for_bit(planted, rate):
    expected = serially(planted, 30, rate)
    vs, reports = through_the_core(planted, serial_pool, B=1, rounds=30, rate=rate)
    assert len(vs) == 30
    for v, x in zip(vs, expected, strict=True):
        np.testing.assert_array_equal(v, x)
    assert not np.array_equal(vs[0], vs[-1])
    assert sum(report["updates"] for report in reports) == 30
    assert sum(report["negative"] for report in reports) == 0


def test_posterior_means_too_are_serial_svi_bit_for_bit(planted):
    model = Model(K=5, alpha=0.2, eta0=0.2, mean=True, tolerance=1e-3, most_iterations=100)
    vs, _ = through_the_core(planted, serial_pool, B=1, rounds=15, model=model)
    np.testing.assert_array_equal(vs[-1], serially(planted, 15, model=model)[-1])
    assert not np.array_equal(vs[-1], serially(planted, 15)[-1])


def test_a_lock_free_pool_of_one_is_serial_svi_bit_for_bit(planted, lock_free_pool):
    vs, _ = through_the_core(planted, lock_free_pool, B=1, rounds=30)
    np.testing.assert_array_equal(vs, serially(planted, 30))


def test_five_updates_between_exchanges_are_serial_svi_but_for_rounding(planted):
    vs, reports = through_the_core(planted, serial_pool, B=5, rounds=6)
    expected = serially(planted, 30)[4::5]
    for v, x in zip(vs, expected, strict=True):
        assert np.abs(v - x).sum() / x.sum() < 1e-5
    assert sum(report["documents"] for report in reports) == 2 * 400 + 4 * 32  # 13 batches are a pass
    assert sum(report["updates"] for report in reports) == 30


def test_the_count_of_updates_is_kept_over_a_resume(planted):
    layout = TopicsLayout(planted.V, 5, 0.2, SVI_RATE)
    problem = DPSVI(planted.corpus, planted.documents, batches_of(planted), MODEL)
    pool = SerialPool(problem, layout, state=np.array([40.0], np.float32))
    pool.run(initial_counts(planted.V * 5, 3), 2, rate_scale=1.0, listener=Nobody())
    assert pool.state().tolist() == [42.0]
    assert json.loads(pool.report())[0]["eta"] == SVI_RATE(41)


class Nobody:
    """A listener that never stops anybody."""

    def stopping(self):
        return False

    def tell(self, report):
        pass

    def keep(self, state):
        pass
