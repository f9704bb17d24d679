"""Fig. 5: data points (agent steps) per second on SpaceInvaders against nodes, a line for each B.

small   emulated hosts by `bench.network`, or this machine without a network where they cannot be had, with
        actor-learners that sleep for a real one's time; and the paper's 20 to 60 nodes of 28 cores by
        `hsa2c.simulation.planning`.
paper   `configs/paper/hsa2c.yaml` for half an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import network
from bench.network import LINKS
from bench.paper import atari
from bench.paper.jobs import Job, history, say
from bench.paper.published import CORES, NODES, SAYS
from bench.testbed.emulated_hosts import why_not
from bench.testbed.results import Results
from bench.testbed.runs import execute
from bench.testbed.sleeping import measurement

_GAME = "SpaceInvaders"
_LINK = "slow"
_WARM_UP_S = 3.0


def small(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    """Measure and simulate what is missing."""
    why = "--one-machine" if options.one_machine else why_not()
    if why is None:
        found = _emulated(options)
    else:
        say(f"no emulated hosts ({why}): one machine, without a network")
        found = _one_machine(options, results)
    return found + _simulated(options, results)


def _sizes(options: argparse.Namespace) -> tuple[Sequence[int], Sequence[int]]:
    return options.nodes or (1, 2, 4, 8), options.B or (1, 4, 16)


def _emulated(options: argparse.Namespace) -> list[dict[str, Any]]:
    nodes, B = _sizes(options)
    arguments = ["--part", "fig5", "--links", _LINK, "--game", _GAME, "--seconds", f"{options.seconds:g}", "--json"]
    arguments += ["--run-dir", str(Path(options.run_dir) / "network"), "--exchange", *options.exchange]
    arguments += ["--nodes", *map(str, nodes), "--B", *map(str, B)]
    if options.update_s is not None:
        arguments += ["--update-s", str(options.update_s)]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        network.main(arguments)
    where = f"emulated hosts, {LINKS[_LINK]}"
    return [{"where": where, **row} for row in json.loads(output.getvalue())["results"]]


def _one_machine(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    """The same actor-learners as ranks of this machine, which exchange through its memory."""
    update_s = options.update_s or network.real_update_s(options.run_dir, _GAME, results)
    found = []
    for exchange, nodes, B in itertools.product(options.exchange, *_sizes(options)):
        key = {"where": "one machine, no network", "exchange": exchange, "nodes": nodes, "B": B, "update_s": update_s}
        found.append(results.get(**key) or results.put({**key, "data_points_per_s": _sleeping(options, key)}))
    return found


def _sleeping(options: argparse.Namespace, key: dict[str, Any]) -> float:
    name = f"sleeping-{key['exchange']}-{key['nodes']}-{key['B']}-{time.time_ns()}"
    seconds = _WARM_UP_S + options.seconds
    given = measurement(key["nodes"], key["B"], key["exchange"], key["update_s"], seconds)
    execute([sys.executable, "-m", "bench.testbed.sleeping", options.run_dir, name, *given], seconds + 120.0)
    return _steady(history(Path(options.run_dir) / name), "data_points", _WARM_UP_S)


def _steady(seen: Sequence[dict[str, Any]], work: str, warm_up_s: float) -> float:
    """Work a second between the first row after the warm-up and the last but one."""
    steady = [row for row in seen if row["elapsed_s"] >= warm_up_s]
    first, last = steady[0], steady[-2]
    return round((last[work] - first[work]) / (last["elapsed_s"] - first["elapsed_s"]), 1)


def _simulated(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    """The paper's clusters by the model of docs/explanation/planning.md, which has its defaults."""
    from hsa2c.simulation.planning import Cluster, simulate

    found = []
    for exchange, nodes, B in itertools.product(options.exchange, NODES, atari.BS):
        cluster = Cluster(nodes=nodes, cores=CORES, B=B, exchange=exchange, seconds=60.0)
        where = f"simulated, {CORES} processes a node, 10 Gbit/s, {1000 * cluster.update_s:g} ms an update"
        key = {"where": where, "exchange": exchange, "nodes": nodes, "B": B}
        kept = results.get(**key)
        found.append(kept or results.put({**key, "data_points_per_s": round(simulate(cluster).samples_per_s)}))
    return found


def paper_jobs(what: str) -> list[Job]:
    """Those of Fig. 6 on one game."""
    return atari.jobs([_GAME])


def from_runs(jobs: Iterable[Job], folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Of a whole run, the mean over its repeats."""
    speeds: dict[tuple[int, int], list[float]] = {}
    for job in jobs:
        seen = history(folder / job.name)
        if seen and seen[-1]["elapsed_s"]:
            cell = (job.key["nodes"], job.key["B"])
            speeds.setdefault(cell, []).append(seen[-1]["agent_steps"] / seen[-1]["elapsed_s"])
    return [
        {"where": "cluster", "exchange": "paper", "nodes": nodes, "B": B, "data_points_per_s": statistics.fmean(all_)}
        for (nodes, B), all_ in speeds.items()
    ]


def draw(what: str, found: Sequence[dict[str, Any]], output: Path, note: str) -> list[dict[str, Any]]:
    """A panel for each place; gives back the table's rows."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from hsa2c.observe.plot import COLOURS, STYLE, save

    places = list(dict.fromkeys(row["where"] for row in found))
    Bs = sorted({row["B"] for row in found})
    with rc_context(STYLE):
        figure = Figure(figsize=(max(8.0, 6.0 * len(places)), 5.2), dpi=110, layout="constrained")
        for panel, where in zip(figure.subplots(1, len(places), squeeze=False)[0], places, strict=True):
            for (colour, B), (exchange, look) in itertools.product(
                zip(COLOURS, Bs, strict=False), (("paper", "--"), ("overlap", "-"))
            ):
                line = sorted((r for r in found if (r["where"], r["B"], r["exchange"]) == (where, B, exchange)), key=_x)
                if line:
                    y = [row["data_points_per_s"] for row in line]
                    panel.plot([_x(r) for r in line], y, look, color=colour, marker="o", label=f"B = {B}, {exchange}")
            panel.set_title(where, loc="left", fontsize=9)
            panel.set(xlabel="nodes", xticks=sorted({_x(row) for row in found if row["where"] == where}))
            panel.yaxis.set_major_formatter("{x:,.0f}")
            panel.set_xlim(left=0)
            panel.set_ylim(bottom=0)
            panel.legend(fontsize=7, handlelength=3.5)
        figure.axes[0].set_ylabel("data points (agent steps) per second")
        asleep = " Actor-learners sleep for a real one's time." if "cluster" not in places else ""
        text = f"The paper's text: {SAYS['fig5']}.\n{note}{asleep}"
        figure.supxlabel(text, fontsize=8, color="#555555", x=0.01, ha="left")
        save(figure, output)
    return [{key: row[key] for key in ("where", "exchange", "nodes", "B", "data_points_per_s")} for row in found]


def _x(row: dict[str, Any]) -> int:
    return int(row["nodes"])
