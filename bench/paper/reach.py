"""Fig. 6: seconds to the best score that B = 1 comes to, against nodes and B.

The goal of a game is the best mean of 100 training games of any number of nodes with B = 1, the mean over seeds.

small   a game or more with real learning, one actor-learner a node, on emulated hosts with links of 1 Gbit/s, or on
        this machine without a network where they cannot be had.
paper   six games, 20 to 60 nodes of 28 cores, half an hour, five times.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.network import Cluster
from bench.paper import atari
from bench.paper.jobs import Job, complete, history, say
from bench.paper.published import SAYS
from bench.testbed.emulated_hosts import EmulatedHosts, why_not
from bench.testbed.reaching import draw_seconds
from bench.testbed.results import Results

_BITS_PER_S = 1e9  # by the kernel: a process that delays packets would take a core from those who learn
_START_S = 180.0

Run = Callable[[Job], Path]


def small(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    """Learn with B = 1 for the whole time, then with each other B until the same score."""
    nodes, Bs = options.nodes or (1, 2), options.B or (1, 8)
    games = options.games or ("SpaceInvaders",)
    with _place(options, max(nodes)) as (where, run):

        def learn(game: str, count: int, B: int, seed: int, goal: float | None) -> dict[str, Any]:
            minutes = options.minutes or 3.0
            key = {"where": where, "game": game, "nodes": count, "B": B, "seed": seed, "minutes": minutes}
            kept = results.get(**key)
            if kept is None:
                job = small_job(key, goal)
                kept = results.put({**key, **atari.scores(history(run(job)))})
            return kept

        found = [learn(game, n, 1, seed, None) for game, n, seed in itertools.product(games, nodes, options.seeds)]
        goals = goals_of(found)
        others = (B for B in Bs if B != 1)
        for game, B, n, seed in itertools.product(games, others, nodes, options.seeds):
            found.append(learn(game, n, B, seed, goals.get(game)))
    return found


def small_job(key: dict[str, Any], goal: float | None) -> Job:
    """Learning at the shipped defaults, with the paper's exchange."""
    given = ["--game", key["game"], "--B", str(key["B"]), "--seed", str(key["seed"]), "--exchange", "paper"]
    given += ["--set", "output.log_every_s=1"]
    if goal is not None:
        given += ["--score", f"{goal:.4f}"]
    place = "emulated" if key["where"].startswith("emulated") else "one-machine"
    name = f"fig6-{place}-{key['game']}-nodes-{key['nodes']}-B-{key['B']}-seed-{key['seed']}-min-{key['minutes']:g}"
    return Job(program="train", name=name, options=tuple(given), nodes=key["nodes"], p=1, minutes=key["minutes"])


@contextlib.contextmanager
def _place(options: argparse.Namespace, nodes: int) -> Iterator[tuple[str, Run]]:
    """Where runs are, in words, and what makes one there."""
    folder = Path(options.run_dir) / "runs"
    why = "--one-machine" if options.one_machine else why_not()
    if why is not None:
        say(f"no emulated hosts ({why}): one machine, without a network")
        yield "one machine, no network", lambda job: complete(job, folder)
        return
    with EmulatedHosts(1 + nodes, bits_per_s=_BITS_PER_S) as hosts:
        cluster = Cluster(hosts, folder)

        def run(job: Job) -> Path:
            shutil.rmtree(folder / job.name, ignore_errors=True)
            command = job.line(job.arguments(folder, "{hosts}"), sys.executable)
            cluster.run(command, job.nodes, 60 * job.minutes + _START_S)
            return folder / job.name

        yield f"emulated hosts, {_BITS_PER_S / 1e9:g} Gbit/s", run


def paper_jobs(what: str) -> list[Job]:
    """All of them."""
    return atari.jobs()


def from_runs(jobs: Iterable[Job], folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Scores over time of those that are there."""
    found = []
    for job in jobs:
        seen = history(folder / job.name)
        if seen:
            found.append({"where": "cluster", **job.key, "minutes": job.minutes, **atari.scores(seen)})
    return found


def goals_of(found: Sequence[dict[str, Any]]) -> dict[str, float]:
    """For each game the highest score of B = 1, over numbers of nodes; each the mean of its seeds' best."""
    best: dict[str, dict[int, list[float]]] = {}
    for row in found:
        if row["B"] == 1 and row["score"]:
            best.setdefault(row["game"], {}).setdefault(row["nodes"], []).append(max(row["score"]))
    return {game: max(statistics.fmean(scores) for scores in by_nodes.values()) for game, by_nodes in best.items()}


def times(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds to the goal of each cell, the mean of the seeds that reached it; a row for each."""
    goals = goals_of(found)
    cells: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in found:
        cells.setdefault((row["game"], row["nodes"], row["B"]), []).append(row)
    lines = []
    for (game, nodes, B), runs in sorted(cells.items()):
        reached = [seconds for run in runs if (seconds := _seconds_to(run, goals.get(game))) is not None]
        best = [max(run["score"]) for run in runs if run["score"]]
        lines.append(
            {
                "game": game,
                "nodes": nodes,
                "B": B,
                "goal": goals.get(game),
                "seconds": statistics.fmean(reached) if reached else None,
                "reached": f"{len(reached)} of {len(runs)}",
                "best": statistics.fmean(best) if best else None,
                "where": runs[0]["where"],
            }
        )
    return lines


def _seconds_to(run: dict[str, Any], goal: float | None) -> float | None:
    if goal is None:
        return None
    # A goal is a mean of floats that went through a file: the run that set it must reach it.
    pairs = zip(run["seconds"], run["score"], strict=True)
    return next((seconds for seconds, score in pairs if score >= goal - 1e-3), None)


def draw(what: str, found: Sequence[dict[str, Any]], output: Path, note: str) -> list[dict[str, Any]]:
    """A panel for each game; gives back the table's rows."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from hsa2c.observe.plot import STYLE, save

    lines = times(found)
    games = list(dict.fromkeys(line["game"] for line in lines))
    longest = 60 * max(row["minutes"] for row in found)
    with rc_context(STYLE):
        across = min(3, len(games))
        down = -(-len(games) // across)
        figure = Figure(figsize=(max(7.5, 4.2 * across), 1.4 + 3.6 * down), dpi=110, layout="constrained")
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel in panels[len(games) :]:
            panel.set_visible(False)
        for panel, game in zip(panels, games, strict=False):
            _panel(panel, [line for line in lines if line["game"] == game], longest)
        text = f"The paper's text: {SAYS['fig6']}.\n{note} Where: {found[0]['where']}."
        figure.supxlabel(text, fontsize=8, color="#555555", x=0.01, ha="left")
        save(figure, output)
    return lines


def _panel(axes: Any, lines: Sequence[dict[str, Any]], longest: float) -> None:
    draw_seconds(axes, lines, longest)
    goal = lines[0]["goal"]
    axes.set_title(f"{lines[0]['game']}: to {goal:,.1f}" if goal is not None else lines[0]["game"], loc="left")
