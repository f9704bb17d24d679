"""Whether the simulator is right: ``python -m bench.plan_check`` (root, and ``pip install -e '.[plan]'``).

The same settings twice: on emulated hosts, by the product's processes over MPI (`bench.network`, with actor-learners
that sleep), and by `hsa2c.simulation.planning` over the simulated clock. The simulator is told what was measured by
itself, and nothing of the outcome:

    an update, and what a node does for an exchange    one node's processes, without MPI and without a master
    delay of a link                                    one TCP connection, without MPI (`bench.testbed.link_probe`)
    the master's processor, and what MPI takes         one rank that only exchanges (`bench.testbed.capacity_rank`)
    how evenly nodes share a link, and what they lose  two and four such ranks

Each is measured alone: what several nodes, B and the kind of exchange make of it is the simulator's own. Data points/s
and exchanges/s of both are printed with their ratio, and drawn: a star where a ratio is not within 10 %, and a tilde
if what was measured lies between the simulator's own seeds. Every measurement is kept in `--run-dir`, and not
made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.network import LINKS, Cluster, sleeping
from bench.testbed import machine
from bench.testbed.emulated_hosts import EmulatedHosts, why_not
from bench.testbed.results import Results
from bench.testbed.runs import execute
from bench.testbed.sleeping import Sleeper, SleepingConfig, WorkConfig
from hsa2c.cluster.mpiexec import mpi_starter
from hsa2c.simulation.links import Link
from hsa2c.simulation.planning import Cluster as Planned
from hsa2c.simulation.planning import simulate

BAND = 0.1
"""How far from 1 a ratio may be."""
_WORK = WorkConfig()
_START_S = 120.0  # for ranks to start and to end
_SEEDS = 8
_EXCHANGES = 60  # as long as these take a rank alone, a measurement lasts at least
_PROBE_S = 4.0
_RANKS_S = 25.0
_STEADY_S = 75.0  # simulated: ranks that exchange without a pause are soon as they stay
_SEVERAL = (2, 4)  # ranks
_STARTS = range(3)  # of several ranks
SHARED = {
    "seniority": (0.0, 0.1, 0.3, 0.6),
    "unfairness": (0.0, 0.05, 0.1, 0.15),
    "loss": (0.0, 0.03, 0.06, 0.1, 0.15, 0.2),
}
"""What ways there are to share a link: fields of `Link`, and values."""


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, simulate, print and draw; exit code 0 also where nothing can be measured."""
    options = _parse(arguments)
    if (why := why_not()) is not None:
        print(f"bench.plan_check: skipped: emulated hosts: {why}", file=sys.stderr)
        return 0
    print(machine.headline(machine.describe()), file=sys.stderr)
    results = Results(Path(options.run_dir) / "check.jsonl")
    node = _kept(results, {"measured": "node", "sleep_s": options.sleep_s}, partial(probe_node, options.sleep_s))
    found, probes = [], [node]
    for link in options.links:
        with LINKS[link].hosts(1 + max(*_SEVERAL, *options.nodes)) as hosts:
            of_link = probe(results, link, hosts, node)
            probes.append({"link": link, **of_link})
            cluster = Cluster(hosts, Path(options.run_dir))
            # Chance, which makes nodes fall out of step, needs many exchanges to be evened out. What is simulated
            # counts from a third on (`hsa2c.simulation.planning.Outcome`), and so does what is measured: nodes begin in
            # step.
            seconds = max(options.seconds, _EXCHANGES / of_link["rank"]["exchanges_per_s"])
            lasting = argparse.Namespace(**vars(options) | {"seconds": seconds, "warm_up": seconds / 2})
            known = {name: of_link[name] for name in ("wire", "rank", "shared")}
            for exchange, nodes, B in itertools.product(options.exchange, options.nodes, options.B):
                key = {"link": link, "exchange": exchange, "nodes": nodes, "B": B, "update_s": options.sleep_s}
                starts = [
                    _kept(results, {**key, "start": start}, partial(sleeping, lasting, cluster, key))
                    for start in range(options.starts if nodes > 1 else 1)  # one is in step with nobody
                ]
                plan = planned(key, node=node, **known, seconds=lasting.warm_up + seconds)
                found.append(compared(key, starts, plan))
                print(_line(found[-1]), file=sys.stderr, flush=True)
    output = options.output or Path(options.run_dir) / "plan-check.png"
    draw(found, output)
    told = {"probes": probes, "results": found, "picture": str(output)}
    print(json.dumps({"machine": machine.describe(), **told}) if options.json else table(found))
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench.plan_check", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--links", nargs="+", choices=tuple(LINKS), default=["usual", "slow"])
    p.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    p.add_argument("--B", type=int, nargs="+", default=[1, 4, 16])
    p.add_argument("--exchange", nargs="+", choices=("paper", "overlap"), default=["paper", "overlap"])
    p.add_argument("--seconds", type=float, default=15.0, help="of each measurement, at least, after half as many (15)")
    p.add_argument("--starts", type=int, default=3, help="measurements of each setting, the mean of which counts (3)")
    p.add_argument("--sleep-s", type=float, default=0.026, help="seconds that an update sleeps (0.026)")
    p.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="for every run")
    p.add_argument("--run-dir", default="runs/plan-check", help="(runs/plan-check)")
    p.add_argument("--output", "-o", type=Path, metavar="FILE", help="(plan-check.png in --run-dir)")
    p.add_argument("--json", action="store_true")
    return p.parse_args(arguments)


def _kept(results: Results, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return results.get(**key) or results.put({**key, **measure()})


# What is measured by itself.


class _Nobody:
    """A listener for a process pool that has no master."""

    def stopping(self) -> bool:
        return False

    def tell(self, report: bytes) -> None:
        pass

    def keep(self, state: Any) -> None:
        pass


def probe_node(sleep_s: float, *, rounds: int = 40, B: Sequence[int] = (1, 5)) -> dict[str, float]:
    """A node's processes alone, in rounds of B updates: t = node_s + B update_s.

    Returns:
        ``update_s``, ``variation`` (standard deviation over mean of one), and ``node_s``, what the node does for an
        exchange: v into u, an order, u out again, the difference, and into the buffer that MPI sends.
    """
    import torch

    from hsa2c.node.layout import dense_layout
    from hsa2c.node.process_pool import ProcessPool

    torch.set_num_threads(1)
    work = WorkConfig(update_s=sleep_s)
    v = np.zeros(work.dim, np.float32)
    outbox = np.empty(work.dim, np.float32)
    layout = dense_layout(work.dim, SleepingConfig().optimiser)
    pool = ProcessPool(lambda index: Sleeper(work, torch.ones(work.dim)), layout, 1)
    took: dict[int, list[float]] = {}
    try:
        pool.wait_ready()
        for count in B:
            for _ in range(2 + rounds):
                began_at = time.perf_counter()
                u = pool.run(v, count, rate_scale=1.0, listener=_Nobody())
                np.copyto(outbox, u - v)
                pool.report()
                took.setdefault(count, []).append(time.perf_counter() - began_at)
    finally:
        pool.close()
    few, many = (float(np.median(took[count][2:])) for count in B)
    update_s = (many - few) / (B[1] - B[0])
    spread = np.subtract(*np.percentile(took[B[0]][2:], (75, 25))) / 1.349  # of a normal distribution
    return {"update_s": update_s, "node_s": max(0.0, few - B[0] * update_s), "variation": float(spread) / update_s}


def probe(results: Results, link: str, hosts: EmulatedHosts, node: Mapping[str, float]) -> dict[str, Any]:
    """What `planned` needs to know of a link."""
    wire = _kept(results, {"measured": "link", "link": link}, partial(probe_link, hosts))

    def ranks(nodes: int, start: int) -> dict[str, Any]:
        key = {"measured": "ranks", "link": link, "nodes": nodes, "start": start}
        return _kept(results, key, partial(probe_ranks, hosts, nodes))

    rank = ranks(1, 0)
    several = [
        {"nodes": n, "exchanges_per_s": statistics.fmean(ranks(n, start)["exchanges_per_s"] for start in _STARTS)}
        for n in _SEVERAL
    ]
    shared = sharing(link, several, node=node, wire=wire, rank=rank)
    return {"wire": wire, "rank": rank, "several": several, "shared": shared}


def probe_link(hosts: EmulatedHosts) -> dict[str, float]:
    """Delay of a link by TCP: half of the median round trip of a byte."""
    with _background([*hosts.inside("h0"), sys.executable, "-m", "bench.testbed.link_probe", "listen"]):
        command = [*hosts.inside("h1"), sys.executable, "-m", "bench.testbed.link_probe", "ask", "h0", str(_PROBE_S)]
        took = json.loads(execute(command, _START_S))
    return {"latency_s": statistics.median(took[1:]) / 2}


@contextmanager
def _background(command: Sequence[str]) -> Iterator[None]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "listens\n":
                raise SystemExit(f"{' '.join(command)}: does not start")
            yield
        finally:
            process.kill()


def probe_ranks(hosts: EmulatedHosts, nodes: int, seconds: float = _RANKS_S) -> dict[str, float]:
    """Ranks that only exchange with the master, over its link: how often all of them, and seconds of the master."""
    with tempfile.TemporaryDirectory(prefix="plan-check-") as folder:
        result = Path(folder) / "result.json"
        task = {"dim": _WORK.dim, "M": nodes, "delta_dtype": "float32", "seconds": seconds, "result": str(result)}
        starter, extra = mpi_starter(1 + nodes, Path(folder), hosts.names[: 1 + nodes])
        command = [*hosts.inside("h0"), *starter, sys.executable, "-m", "bench.testbed.capacity_rank", json.dumps(task)]
        execute(command, seconds + _START_S, extra | hosts.environment)
        found = json.loads(result.read_text())
    each = {name: spent / found["exchanges"] for name, spent in found["split_s"].items()}
    return {
        "exchanges_per_s": found["exchanges"] / found["seconds"],
        "push_s": sum(each.get(name, 0.0) for name in ("receive", "decode", "finite", "sum", "step")),
        "answer_s": sum(each.get(name, 0.0) for name in ("serve", "send")),
    }


# What is simulated.


def planned(
    key: Mapping[str, Any],
    *,
    node: Mapping[str, float],
    wire: Mapping[str, float],
    rank: Mapping[str, float],
    shared: Mapping[str, float],
    seconds: float,
) -> Planned:
    """The cluster of a setting, of what the probes have found.

    An exchange of one rank takes the link's delay, the time for its bytes, the master's work, and how late both ends
    look, at most 2 ms each way. What is left are MPI's copies: the node's, since other nodes' go on meanwhile.
    """
    late_s, link = Planned.notice_s, LINKS[key["link"]]
    bytes_per_s = link.bits_per_s / 8
    bytes_s = 2 * 4 * _WORK.dim / bytes_per_s
    known_s = 2 * (wire["latency_s"] + late_s) + rank["push_s"] + rank["answer_s"] + bytes_s
    copies_s = max(0.0, 1 / rank["exchanges_per_s"] - known_s)
    return Planned(
        nodes=key["nodes"],
        cores=1,
        B=key["B"],
        exchange=key["exchange"],
        link=Link(bytes_per_s=bytes_per_s, latency_s=wire["latency_s"], **shared),
        update_s=node["update_s"],
        variation=node["variation"],
        samples=_WORK.samples,
        parameters=_WORK.dim,
        state_vectors=0,
        push_s=rank["push_s"],
        answer_s=rank["answer_s"],
        message_s=0.0,
        notice_s=late_s,
        node_s=node["node_s"] + copies_s,
        free_core=True,  # who sleeps needs no core
        keep_s=math.inf,
        seconds=seconds,
        exchanges=10**9,
    )


def sharing(
    link: str,
    several: Sequence[Mapping[str, Any]],
    ways: Mapping[str, Sequence[float]] = SHARED,
    **probes: Mapping[str, float],
) -> dict[str, float]:
    """How nodes share a link: of all `ways` that with which ranks that only exchange are simulated best.

    Where all messages get the same of a link, nodes that are in step stay so, and each has half of it. By chance, or
    because who comes first keeps more, one gets ahead, until each has the link for itself. What more ranks do not get
    is lost.
    """
    idle = {**probes, "node": {"update_s": 1e-9, "variation": 0.0, "node_s": 0.0}}

    def off(shared: dict[str, float]) -> float:
        far = 0.0
        for ranks in several:
            key = {"link": link, "nodes": ranks["nodes"], "B": 1, "exchange": "paper"}
            plan = planned(key, **idle, shared=shared, seconds=_STEADY_S)
            found = simulated(plan, seeds=_SEEDS // 2).exchanges_per_s[0]
            far += math.log(found / ranks["exchanges_per_s"]) ** 2
        return far

    return min((dict(zip(ways, way, strict=True)) for way in itertools.product(*ways.values())), key=off)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Of several seeds, the mean; and the least and the most."""

    data_points_per_s: tuple[float, float, float]
    exchanges_per_s: tuple[float, float, float]


def simulated(plan: Planned, seeds: int = _SEEDS) -> Simulated:
    """As long as the measurement, several times."""
    outcomes = [simulate(replace(plan, seed=seed)) for seed in range(seeds)]
    points, exchanges = ([getattr(o, name) for o in outcomes] for name in ("samples_per_s", "exchanges_per_s"))
    points, exchanges = ((float(np.mean(x)), min(x), max(x)) for x in (points, exchanges))
    return Simulated(data_points_per_s=points, exchanges_per_s=exchanges)


def compared(key: Mapping[str, Any], starts: Sequence[Mapping[str, Any]], plan: Planned) -> dict[str, Any]:
    """Both, and their ratios: simulated over measured, which is the mean of several starts."""
    plain = simulated(plan)
    row = dict(key)
    for what, mine in (("data_points_per_s", plain.data_points_per_s), ("exchanges_per_s", plain.exchanges_per_s)):
        each = [start[what] for start in starts]
        row[what] = {
            "measured": round(statistics.fmean(each), 2),
            "of": each,
            "simulated": round(mine[0], 2),
            "range": [round(x, 2) for x in mine[1:]],
            "ratio": round(mine[0] / statistics.fmean(each), 3),
        }
    return row


def within(row: Mapping[str, Any], band: float = BAND) -> bool:
    """Whether both ratios are so near to 1."""
    return all(round(abs(row[what]["ratio"] - 1), 3) <= band for what in ("data_points_per_s", "exchanges_per_s"))


def by_chance(row: Mapping[str, Any]) -> bool:
    """Whether both measurements lie between the least and the most of the simulator's seeds."""
    return all(
        row[what]["range"][0] <= row[what]["measured"] <= row[what]["range"][1]
        for what in ("data_points_per_s", "exchanges_per_s")
    )


# What is shown.


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """A line for each setting, and how many are within the band."""
    head = (
        "link    exchange nodes   B   data points/s: measured, simulated, ratio"
        "   exchanges/s: measured, simulated, ratio"
    )
    good = sum(within(row) for row in found)
    return "\n".join([head, *map(_line, found), f"{good} of {len(found)} within {BAND:.0%}"])


def _line(row: Mapping[str, Any]) -> str:
    points, exchanges = row["data_points_per_s"], row["exchanges_per_s"]
    return (
        f"{row['link']:7} {row['exchange']:8} {row['nodes']:5} {row['B']:3}"
        f"   {points['measured']:14,.0f} {points['simulated']:12,.0f} {points['ratio']:10.3f}"
        f"    {exchanges['measured']:18.2f} {exchanges['simulated']:12.2f} {exchanges['ratio']:8.3f}"
        f"{'' if within(row) else '  ~' if by_chance(row) else '  *'}"
    )


def draw(found: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Simulated against measured, the diagonal, and the band around it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    from hsa2c.observe.plot import COLOURS, STYLE, save

    with rc_context(STYLE):
        figure = Figure(figsize=(10, 5), dpi=110, layout="constrained")
        names = {"data_points_per_s": "data points (agent steps) per second", "exchanges_per_s": "exchanges per second"}
        for panel, (what, name) in zip(figure.subplots(1, 2), names.items(), strict=True):
            kinds = sorted({(row["link"], row["exchange"]) for row in found}, reverse=True)
            for (link, exchange), colour in zip(kinds, COLOURS, strict=False):
                rows = [row[what] for row in found if (row["link"], row["exchange"]) == (link, exchange)]
                x, y = ([row[which] for row in rows] for which in ("measured", "simulated"))
                ends = np.abs(np.array([row["range"] for row in rows]).T - y)
                starts = np.abs(np.array([[min(row["of"]), max(row["of"])] for row in rows]).T - x)
                marker = "o" if exchange == "overlap" else "^"
                label = f"{LINKS[link]}, {exchange}"
                panel.errorbar(x, y, ends, starts, marker, color=colour, markersize=5, capsize=2, label=label)
            values = [row[what][which] for row in found for which in ("measured", "simulated")]
            line = np.array([0.8 * min(values), 1.25 * max(values)])
            panel.plot(line, line, color="#777777", linewidth=1)
            panel.fill_between(line, (1 - BAND) * line, (1 + BAND) * line, color="#777777", alpha=0.2, linewidth=0)
            panel.set(xscale="log", yscale="log", title=name, xlabel="measured", ylabel="simulated")
            for axis in (panel.xaxis, panel.yaxis):
                axis.set_minor_formatter(NullFormatter())
        figure.axes[0].legend(fontsize=8)
        save(figure, output)


if __name__ == "__main__":
    sys.exit(main())
