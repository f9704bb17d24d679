"""The check of the simulator: what it is told, and one setting for real against what is simulated."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import pytest

from bench import network, plan_check
from bench.testbed.emulated_hosts import why_not
from bench.testbed.sleeping import WorkConfig
from hsa2c.simulation.planning import simulate

BYTES = 4 * WorkConfig().dim
NODE = {"update_s": 0.026, "node_s": 0.002, "variation": 0.0}
WIRE = {"latency_s": 0.0103}
EXCHANGE_S = 2 * BYTES / 12.5e6 + 2 * 0.0103 + 2 * 0.001 + 0.0020
RANK = {"exchanges_per_s": 1 / EXCHANGE_S, "push_s": 0.0012, "answer_s": 0.0008}
PROBES = {"node": NODE, "wire": WIRE, "rank": RANK}


def key(**changes):
    return {"link": "slow", "exchange": "paper", "nodes": 1, "B": 4, "update_s": 0.026} | changes


def test_one_node_takes_what_its_parts_take() -> None:
    """The probes of one rank and of one node, put together: nothing is counted twice, and nothing left out."""
    plan = plan_check.planned(key(), **PROBES, shared={}, seconds=300.0)
    assert plan.link.bytes_per_s == pytest.approx(12.5e6)
    outcome = simulate(plan)
    round_s = 4 * 0.026 + 0.002 + EXCHANGE_S
    assert 1 / outcome.exchanges_per_s == pytest.approx(round_s, rel=0.01)
    assert outcome.samples_per_s == pytest.approx(4 * 48 / round_s, rel=0.01)
    overlap = simulate(replace(plan, exchange="overlap"))
    assert 1 / overlap.exchanges_per_s == pytest.approx(0.002 + EXCHANGE_S, rel=0.01)
    assert overlap.samples_per_s == pytest.approx(48 / 0.026, rel=0.01)  # who sleeps loses nothing


@pytest.mark.slow
def test_how_a_link_is_shared_shows_in_ranks_that_exchange() -> None:
    truth = {"seniority": 0.6, "unfairness": 0.05, "loss": 0.1}
    # Of all 96 ways it takes a minute to find one: this is the truth, and what is next to it.
    ways = {"seniority": (0.0, 0.6), "unfairness": (0.0, 0.05), "loss": (0.0, 0.1)}
    nothing = {"update_s": 1e-9, "variation": 0.0, "node_s": 0.0}
    several = []
    for nodes in (2, 4):
        plan = plan_check.planned(key(nodes=nodes, B=1), **PROBES | {"node": nothing}, shared=truth, seconds=75.0)
        several.append({"nodes": nodes, "exchanges_per_s": plan_check.simulated(plan, seeds=4).exchanges_per_s[0]})
    found = plan_check.sharing("slow", several, ways, **PROBES)
    assert found == truth


def test_a_ratio_is_simulated_over_measured(tmp_path) -> None:
    plan = plan_check.planned(key(), **PROBES, shared={}, seconds=60.0)
    truth = simulate(plan)
    right = {"data_points_per_s": truth.samples_per_s, "exchanges_per_s": truth.exchanges_per_s}
    row = plan_check.compared(key(), [right], plan)
    assert plan_check.within(row)
    spread = {"ratio": 1.3, "range": [5.0, 9.0], "measured": 6.0}
    assert plan_check.by_chance({"data_points_per_s": spread, "exchanges_per_s": spread})
    assert not plan_check.by_chance({"data_points_per_s": spread, "exchanges_per_s": spread | {"measured": 4.0}})
    starts = [right | {"exchanges_per_s": x * truth.exchanges_per_s} for x in (1.1, 1.3)]
    wrong = plan_check.compared(key(), starts, plan)
    assert wrong["exchanges_per_s"]["ratio"] == pytest.approx(1 / 1.2, rel=0.02)
    assert not plan_check.within(wrong)
    assert plan_check.table([row, wrong]).endswith("*\n1 of 2 within 10%")
    plan_check.draw([row, wrong], tmp_path / "check.png")
    assert (tmp_path / "check.png").stat().st_size > 10_000


@pytest.mark.timeout(60)
def test_a_node_is_measured_alone() -> None:
    found = plan_check.probe_node(0.004, rounds=10)
    assert 0.004 < found["update_s"] < 0.05
    assert 0.0 <= found["node_s"] < 0.05


def test_says_why_it_checks_nothing(tmp_path, capfd, monkeypatch) -> None:
    monkeypatch.setattr(plan_check, "why_not", lambda: "needs root")
    assert plan_check.main(["--run-dir", str(tmp_path / "runs")]) == 0
    assert capfd.readouterr().err == "bench.plan_check: skipped: emulated hosts: needs root\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(why_not() is not None, reason=f"emulated hosts: {why_not()}")
def test_the_slow_link_is_as_slow_as_simulated(tmp_path) -> None:
    """A link that takes most of the time, so that a busy machine does not matter much; told only what was asked for."""
    options = argparse.Namespace(run_dir=str(tmp_path), warm_up=1.0, seconds=4.0, set=[])
    with network.LINKS["slow"].hosts(2) as hosts:
        began_at = time.monotonic()
        measured = network.sleeping(options, network.Cluster(hosts, tmp_path), key())
        assert time.monotonic() - began_at > 5.0
    plan = plan_check.planned(key(), **PROBES, shared={}, seconds=60.0)
    row = plan_check.compared(key(), [measured], plan)
    assert plan_check.within(row, 0.3), row
