"""The book of nodes, by hand: who is slow, for how long, and what is written of each."""

import numpy as np
import pytest

from hsa2c.dpsgd.protocols import Push
from hsa2c.observe.per_node import Headway, NodeBook, Slowest, slowest

V = np.zeros(2, np.float32)


def book(nodes, hosts=True):
    book = NodeBook(nodes)
    for node in range(nodes):
        book.ready(node, f"h{node}" if hosts else None)
    book.begin(0.0)
    return book


def work(book, now, updates, until, every=5.0):
    """Rows until a time, each with so many updates of each node; gives back the warnings."""
    warnings = []
    while now < until:
        now += every
        for node, made in enumerate(updates):
            book.applied(node, made)
        book.row(now, every)
        warnings.append(book.warning())
    return [warning for warning in warnings if warning]


@pytest.mark.parametrize(
    ("updates", "node", "share"),
    [({0: 10, 1: 7}, 1, 0.7), ({0: 8, 1: 10, 2: 12, 3: 5}, 3, 0.5), ({4: 0, 2: 3}, 4, 0.0), ({0: 5, 1: 5}, 0, 1.0)],
)
def test_slowest_by_hand(updates, node, share):
    assert slowest(updates, 9.0) == Slowest(node, share, 9.0)


@pytest.mark.parametrize("updates", [{}, {3: 10}, {0: 0, 1: 0}])
def test_nobody_is_slowest_where_nobody_can_be_compared(updates):
    assert slowest(updates, 9.0) is None


def test_headway_is_of_the_last_minute():
    headway = Headway(2)
    headway.mark(0.0)
    for second in range(1, 301):
        headway.count(0, 10)
        headway.count(1, 10 if second <= 200 else 4)
        headway.mark(float(second))
        if second == 200:
            assert headway.slowest().share == 1
    assert headway.slowest() == Slowest(1, 0.4, 60.0)


def test_node_that_was_away_is_compared_again_when_it_was_there_for_a_whole_window():
    headway = Headway(3)
    for second in range(131):
        for node in range(3):
            if node != 2 or not 20 < second < 50:
                headway.count(node, 10 if node else 8)
        if second == 20:
            headway.drop(2)
        headway.mark(float(second))
        known = headway.slowest()
        assert known is None or known.node == 0
    headway.count(2, -300)  # only now, to see whether it is looked at
    headway.mark(131.0)
    assert headway.slowest().node == 2


def test_slow_node_is_warned_of_once_by_its_host():
    nodes = book(3)
    assert work(nodes, 0.0, (100, 100, 45), 55.0) == [], "not long enough"
    (warning,) = work(nodes, 55.0, (100, 100, 45), 300.0)
    assert warning == "node 2 on h2 is slow: 0.45 of the updates of the other nodes' median in the last 60 s"
    assert work(nodes, 300.0, (100, 100, 100), 400.0) == []
    assert len(work(nodes, 400.0, (100, 100, 45), 600.0)) == 1, "it was over, and is again"
    assert len(work(nodes, 600.0, (10, 100, 100), 800.0)) == 1, "another one"


def test_somewhat_slower_is_no_reason_to_warn():
    nodes = book(3)
    assert work(nodes, 0.0, (100, 100, 55), 600.0) == []
    assert nodes.slowest() == "node 2 on h2, 0.55 of the median of the others"


def test_node_that_is_lost_is_not_slow():
    nodes = book(3)
    work(nodes, 0.0, (100, 100, 100), 100.0)
    nodes.gone(2)
    assert work(nodes, 100.0, (100, 100), 300.0) == []
    assert nodes.row(301.0, 1.0)[0]["nodes/slowest_share"] == 1


def test_row_and_record_by_hand():
    nodes = book(2)
    nodes.pushed(Push(0, V, 0, 30.0), 0)  # it had waited for the other node
    nodes.pushed(Push(0, V, 0, 0.5), 2)
    nodes.pushed(Push(0, V, 0, 0.25), 0)
    report = {"work": 1, "overlap": {"0": 3, "2": 1}, "process_s": {"wall": 2.0, "computing": 1.5, "waiting": 0.25}}
    nodes.heard(0, report)
    assert report == {"work": 1}, "the rest is the tracker's"
    nodes.heard(0, {"overlap": {"7": 1}, "process_s": {"wall": 1.0, "computing": 0.5, "waiting": 0.5}})
    nodes.heard(1, {"work": 1})
    nodes.applied(0, 5)
    nodes.applied(1, 4)
    nodes.looked([(0, 1.0), (0, 3.0)], [(0, -0.5)])
    values, overlaps = nodes.row(5.0, 5.0)
    assert values == {
        "staleness/overlap_mean": 9 / 5,
        "staleness/overlap_max": 7,
        "time/waiting_for_master": 0.75 / 5 / 2,
        "nodes/slowest": 1,
        "nodes/slowest_share": 0.8,
    }
    assert overlaps == [0, 0, 0, 2, 7]
    first, second = nodes.record()
    assert first == {
        "node": 0, "host": "h0", "updates": 5, "pushes": 3, "exchanging_s": 0.75,
        "wall_s": 3.0, "computing_s": 2.0, "waiting_s": 0.75,
        "tau": {0: 2, 2: 1}, "tau_mean": 2 / 3, "tau_max": 2,
        "overlap": {0: 3, 2: 1, 7: 1}, "overlap_mean": 9 / 5, "overlap_max": 7,
        "delta_norm": 2.0, "delta_cosine": -0.5,
    }  # fmt: skip
    assert (second["node"], second["updates"], second["tau_mean"], second["delta_norm"]) == (1, 4, None, None)
    values, overlaps = nodes.row(10.0, 5.0)
    assert (values["staleness/overlap_mean"], values["time/waiting_for_master"], overlaps) == (None, 0.0, [])
    assert nodes.record() == []


def test_first_exchange_of_a_node_that_came_back_is_left_out_too():
    nodes = book(1)
    for waited_s in (1.0, 2.0):
        nodes.pushed(Push(0, V, 0, waited_s), 0)
    nodes.gone(0)
    for waited_s in (4.0, 8.0):
        nodes.pushed(Push(0, V, 0, waited_s), 0)
    assert nodes.record()[0]["exchanging_s"] == 10.0


def test_histogram_of_very_many_updates_is_thinned():
    nodes = book(1)
    nodes.heard(0, {"overlap": {"0": 3_000_000, "1": 1_000_000, "9": 1}})
    _, overlaps = nodes.row(5.0, 5.0)
    assert len(overlaps) < 110_000
    assert overlaps.count(0) == pytest.approx(3 * overlaps.count(1), rel=0.01)
    assert overlaps[-1] == 9
