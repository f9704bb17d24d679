"""Planning: what is simulated against arithmetic, where nodes stop helping, and how long it takes here."""

from __future__ import annotations

import dataclasses
import math
import time

import pytest

from hsa2c.simulation.cluster import kept_every_s
from hsa2c.simulation.links import Link
from hsa2c.simulation.planning import Cluster, bound, conclusion, simulate
from hsa2c.transport.messages import Limits

GIGABIT = Link(bytes_per_s=125e6, latency_s=1e-4)
FREE = {"push_s": 0.0, "answer_s": 0.0, "message_s": 0.0, "node_s": 0.0, "notice_s": 0.0, "keep_s": math.inf}


def test_a_gigabit_allows_46_exchanges_a_second() -> None:
    """2.7 MB each way, as was measured over a real link of that speed (44 ms a round trip)."""
    cluster = Cluster(nodes=40, B=8, link=GIGABIT, seconds=120.0, **FREE)
    outcome = simulate(cluster)
    # Who share the link evenly begin and end nearly together, so that now and then nobody needs one direction of it.
    most = 125e6 / 2.709e6
    assert 0.85 * most < outcome.exchanges_per_s <= 1.01 * most
    assert outcome.master_link == pytest.approx(outcome.exchanges_per_s / most, abs=0.01)
    assert outcome.master_cpu == 0.0
    assert bound(cluster).exchanges_per_s == pytest.approx(46, abs=0.5)
    assert bound(cluster).nodes == pytest.approx(46.1 * 8 * 0.03, rel=0.01)
    assert outcome.exchange_s == pytest.approx(40 / outcome.exchanges_per_s, rel=0.02)  # all wait for the link
    assert outcome.updates_in_delta == pytest.approx(40 / outcome.exchanges_per_s / 0.03, rel=0.02)


def test_a_busy_processor_is_the_other_end() -> None:
    cluster = Cluster(nodes=100, B=1, push_s=0.004, answer_s=0.001, message_s=0.0, keep_s=math.inf, seconds=60.0)
    outcome = simulate(cluster)
    assert outcome.exchanges_per_s == pytest.approx(200, rel=0.01)
    assert outcome.master_cpu == pytest.approx(1.0, abs=0.01)
    assert outcome.limit.what == "master's processor"
    assert conclusion(cluster, outcome).startswith("help no more beyond 6: the master's processor; an exchange takes")


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["overlap", "paper"])
def test_nodes_help_up_to_the_bound_and_not_beyond(exchange: str) -> None:
    base = Cluster(nodes=1, cores=4, B=4, exchange=exchange, variation=0.1, exchanges=7_000)  # type: ignore[arg-type]
    most = round(bound(base).nodes)
    seen = {}
    for share in (0.4, 0.8, 2.0, 4.0):
        seen[share] = simulate(dataclasses.replace(base, nodes=round(share * most)))
    speed = {share: outcome.exchanges_per_s for share, outcome in seen.items()}
    assert speed[0.8] == pytest.approx(2 * speed[0.4], rel=0.07)
    assert speed[2.0] == pytest.approx(bound(base).exchanges_per_s, rel=0.05)
    assert speed[4.0] == pytest.approx(speed[2.0], rel=0.05)
    assert seen[0.4].speed_share > 0.85
    # Whose processes stop for an exchange wait in the queue; the others put more updates into a delta.
    if exchange == "paper":
        assert seen[4.0].speed_share < 0.3
        assert seen[4.0].updates_in_delta == pytest.approx(4.0, rel=0.01)
    else:
        assert seen[4.0].speed_share == pytest.approx(1.0, abs=0.02)
        assert seen[4.0].updates_in_delta > 12


def test_four_masters_serve_four_times_as_many() -> None:
    one = Cluster(nodes=40, B=1, exchange="paper", seconds=30.0, **{**FREE, "push_s": 0.003, "keep_s": math.inf})
    four = dataclasses.replace(one, masters=4)
    assert bound(four).exchanges_per_s == pytest.approx(4 * bound(one).exchanges_per_s, rel=0.01)
    assert simulate(one).exchanges_per_s == pytest.approx(333, rel=0.01)
    assert simulate(four).exchanges_per_s > 1.9 * 333


def test_smaller_deltas_spare_the_link_one_way_only() -> None:
    base = Cluster(nodes=400, B=1, link=GIGABIT, seconds=60.0, **FREE)
    assert bound(dataclasses.replace(base, delta_bytes=1)).exchanges_per_s == pytest.approx(46, abs=0.5)


def test_a_quarter_of_stragglers_costs_what_they_are_slower_and_no_more() -> None:
    base = Cluster(nodes=20, cores=4, B=8, exchange="paper", variation=0.0, seconds=120.0)
    even, uneven = simulate(base), simulate(dataclasses.replace(base, stragglers=(0.25, 5.0)))
    # 15 nodes at full speed and 5 at a fifth of it; nobody waits for them.
    assert uneven.samples_per_s == pytest.approx(even.samples_per_s * (15 + 5 / 5) / 20, rel=0.03)
    assert uneven.tau_max > even.tau_max
    assert "stragglers cost 20 %" in conclusion(dataclasses.replace(base, stragglers=(0.25, 5.0)), uneven)


def test_auto_finds_the_b_that_loses_5_percent() -> None:
    cluster = Cluster(nodes=4, cores=2, B="auto", exchange="paper", variation=0.0, seconds=120.0)
    outcome = simulate(cluster)
    assert 0.93 <= outcome.speed_share <= 0.97
    # An exchange takes about 8 ms: B Tu must be 19 times as long.
    assert outcome.updates_in_delta == pytest.approx(19 * outcome.exchange_s / 0.03, rel=0.35)


@pytest.mark.slow
def test_auto_overlapped_waits_for_no_exchange() -> None:
    outcome = simulate(Cluster(nodes=100, B="auto", link=GIGABIT, seconds=240.0))
    assert outcome.speed_share > 0.98
    assert outcome.updates_in_delta * 0.03 >= 0.95 * outcome.exchange_s


def test_nodes_that_die_are_given_up() -> None:
    outcome = simulate(Cluster(nodes=30, cores=2, B=32, node_hours=0.1, seconds=150.0, exchanges=10**9, variation=0.0))
    assert outcome.lost >= 3
    assert outcome.ended is None
    assert 0.5 < outcome.speed_share < 1.0
    all_of_them = simulate(Cluster(nodes=3, cores=2, B=32, node_hours=0.005, seconds=600.0, exchanges=10**9))
    assert all_of_them.ended is not None
    assert "silent for 60 s (limit 60 s)" in all_of_them.ended


def test_a_cluster_whose_exchange_takes_longer_than_nodes_wait_fails() -> None:
    slow = Link(bytes_per_s=1e6, latency_s=1e-3)
    cluster = Cluster(nodes=20, B=1, link=slow, limits=Limits(silence_s=30.0, absence_s=15.0), seconds=600.0)
    outcome = simulate(cluster)
    assert outcome.ended is not None
    assert conclusion(cluster, outcome).startswith("training ends: ")


def test_a_seed_repeats_and_another_does_not() -> None:
    cluster = Cluster(nodes=10, cores=4, B="auto", seconds=5.0, exchanges=200, stragglers=(0.1, 2.0))
    assert simulate(cluster) == simulate(cluster)
    assert simulate(cluster) != simulate(dataclasses.replace(cluster, seed=2))


@pytest.mark.slow
@pytest.mark.parametrize(("exchange", "nodes", "B"), [("overlap", 300, 8), ("paper", 300, 1)])
def test_it_ends_when_the_figures_stand_still(exchange: str, nodes: int, B: int) -> None:
    cluster = Cluster(nodes=nodes, B=B, exchange=exchange)  # type: ignore[arg-type]
    soon, late = simulate(cluster), simulate(dataclasses.replace(cluster, exchanges=12_000))
    assert soon.simulated_s < 0.7 * late.simulated_s
    assert soon.samples_per_s == pytest.approx(late.samples_per_s, rel=cluster.tolerance)
    assert soon.exchanges_per_s == pytest.approx(late.exchanges_per_s, rel=cluster.tolerance)
    assert soon.exchange_s == pytest.approx(late.exchange_s, rel=0.05)


@pytest.mark.slow
def test_what_is_asked_for_is_simulated_however_still_the_figures_stand() -> None:
    cluster = Cluster(nodes=40, B=1, exchanges=8_000)
    assert simulate(cluster).simulated_s > 1.5 * simulate(dataclasses.replace(cluster, exchanges=None)).simulated_s
    dying = Cluster(nodes=40, B=8, node_hours=1e6, seconds=60.0)  # the first may die after the figures stood still
    assert simulate(dying).simulated_s >= 60.0


def test_optimisers_states_take_their_share_from_the_beginning() -> None:
    cluster = Cluster(nodes=400, B=8)
    outcome, work = simulate(cluster), cluster.work()
    assert outcome.simulated_s < cluster.keep_s
    exchange_s = work.push_s + work.answer_s + 3 * work.message_s
    kept_s = cluster.nodes * (work.keep_s + work.message_s) / cluster.keep_s
    assert outcome.exchanges_per_s * exchange_s + kept_s == pytest.approx(1.0, rel=0.01)


def test_a_state_goes_with_the_first_exchange_after_50_s() -> None:
    rare = Cluster(nodes=2, B=1000, variation=0.0)  # a round takes 30 s: every second one
    assert kept_every_s(rare) == pytest.approx(60.0, rel=0.01)
    # Rounds of 13.4 s by exchanges alone; with a third of 4,000 states of 4.05 ms in each 18.8 s, and so after three.
    assert kept_every_s(Cluster(nodes=4000, B=8)) == pytest.approx(3 * 18.8, rel=0.001)
    assert kept_every_s(Cluster(nodes=4, keep_s=math.inf)) == math.inf


def test_progress_is_told() -> None:
    told: list[float] = []
    simulate(Cluster(nodes=10, cores=4, B=8, seconds=20.0), told.append)
    assert 40 <= len(told) <= 51
    assert told == sorted(told)
    assert 0.0 <= told[0] <= 0.05
    assert told[-1] > 0.95


@pytest.mark.slow
def test_4000_nodes_of_28_are_simulated_five_times_as_fast_as_they_work() -> None:
    cluster = Cluster(nodes=4000, cores=28, B=64, seconds=60.0, exchanges=10**9)
    began_at = time.process_time()
    outcome = simulate(cluster)
    assert outcome.simulated_s >= 60.0
    assert outcome.exchanges_per_s > 150
    assert time.process_time() - began_at < 12


def test_a_free_core_takes_the_exchanges() -> None:
    busy = Cluster(nodes=2, cores=1, B=1, node_s=0.01, seconds=30.0, variation=0.0)
    assert simulate(busy).speed_share == pytest.approx(0.03 / 0.04, rel=0.02)
    assert simulate(dataclasses.replace(busy, free_core=True)).speed_share == pytest.approx(1.0, rel=0.01)
