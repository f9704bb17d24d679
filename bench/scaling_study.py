"""What nodes, processes and B do to learning: ``python -m bench.scaling_study``.

One run for each combination, all to the same number of agent steps, one after the other. It is long, so it goes on
where it was stopped: a finished run is kept, an unfinished one resumed. At the end a table, and two pictures of all
learning curves, with a panel for each number of nodes and of processes: over agent steps, which shows what staleness
and lost writes cost, and over minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from bench.testbed import machine
from bench.testbed.runs import events, rows, train
from hsa2c.cluster.machine import cap_threads
from hsa2c.observe.runlog import Row


@dataclass(frozen=True, order=True)
class Cell:
    """One combination."""

    nodes: int
    p: int
    B: int

    def directory(self, options: argparse.Namespace) -> Path:
        """Where its run is kept."""
        return Path(options.run_dir) / f"{options.game}-nodes-{self.nodes}-p-{self.p}-B-{self.B}-seed-{options.seed}"


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then print and draw everything."""
    options = _parse(arguments)
    cap_threads()
    facts = machine.describe()
    print(machine.headline(facts), file=sys.stderr)
    cells = [Cell(*each) for each in itertools.product(options.nodes, options.p, options.B)]
    histories, results = {}, []
    for number, cell in enumerate(cells, 1):
        _complete(options, cell)
        histories[cell] = _history(options, cell)
        results.append(_result(options, cell, histories[cell]))
        print(f"{number} of {len(cells)}: {_line(options, results[-1])}", file=sys.stderr, flush=True)
    pictures = [_draw(options, histories, "agent_steps"), _draw(options, histories, "minutes")]
    if options.json:
        print(json.dumps({"runs": results, "pictures": pictures, "score": options.score, "machine": facts}))
    else:
        print("\n".join(_line(options, result) for result in results))
        print("\n".join(pictures))
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench.scaling_study", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--game", default="Pong")
    p.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    p.add_argument("--p", type=int, nargs="+", default=[1, 2])
    p.add_argument("--B", type=int, nargs="+", default=[1, 4, 8, 16])
    p.add_argument("--agent-steps", type=int, default=600_000, help="of each run, over all its nodes (600000)")
    p.add_argument("--score", type=float, default=0.0, help="mean of the last 100 games whose time is told (0)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--run-dir", default="runs/scaling", help="folder that the runs are kept in (runs/scaling)")
    p.add_argument(
        "--train", action="append", default=[], metavar="OPTION", help="passed on, such as --train=--lr=1e-4"
    )
    p.add_argument("--json", action="store_true")
    return p.parse_args(arguments)


def _complete(options: argparse.Namespace, cell: Cell) -> None:
    """Start the run of a cell, go on with it, or leave it if it has all its agent steps."""
    directory = cell.directory(options)
    limit = ["--agent-steps", str(options.agent_steps)]
    if not events(directory, "checkpoint"):
        shutil.rmtree(directory, ignore_errors=True)  # stopped before it had anything to keep
        new = ["--game", options.game, "--nodes", str(cell.nodes), "--p", str(cell.p), "--B", str(cell.B)]
        new += ["--seed", str(options.seed), "--run-dir", str(directory.parent), "--name", directory.name]
        train([*new, *limit, *options.train])
    elif rows(directory)[-1]["agent_steps"] < options.agent_steps:
        train(["--resume", str(directory), *limit])


def _history(options: argparse.Namespace, cell: Cell) -> list[Row]:
    """The rows of a run up to the budget: one that was made for a larger one is cut where the others end."""
    history = rows(cell.directory(options))
    within = sum(row["agent_steps"] < options.agent_steps for row in history)
    return history[: within + 1]


def _result(options: argparse.Namespace, cell: Cell, history: Sequence[Row]) -> dict[str, Any]:
    last = history[-1]
    reached = next((row for row in history if (row.get("score/best_mean_100") or -1e9) >= options.score), None)
    return {
        **asdict(cell),
        "directory": str(cell.directory(options)),
        "agent_steps": last["agent_steps"],
        "seconds": last["elapsed_s"],
        "exchanges": last["exchanges"],
        "mean_100": last["score/mean_100"],
        "agent_steps_to_score": reached and reached["agent_steps"],
        "seconds_to_score": reached and reached["elapsed_s"],
    }


def _line(options: argparse.Namespace, result: dict[str, Any]) -> str:
    speed = result["agent_steps"] / result["seconds"]
    if result["seconds_to_score"] is None:
        when = f"{options.score:g} not reached"
    else:
        when = f"{options.score:g} after {result['agent_steps_to_score']:,} and {result['seconds_to_score']:,.0f} s"
    mean = "-" if result["mean_100"] is None else f"{result['mean_100']:.1f}"
    return (
        f"nodes = {result['nodes']}, p = {result['p']}, B = {result['B']:2}:"
        f" {result['agent_steps']:,} agent steps in {result['seconds']:,.0f} s ({speed:,.0f}/s),"
        f" {result['exchanges']:,} exchanges, last 100 games {mean}, {when}"
    )


def _draw(
    options: argparse.Namespace, histories: Mapping[Cell, Sequence[Row]], x: Literal["agent_steps", "minutes"]
) -> str:
    """One picture: a panel for each number of nodes and of processes, in it a curve for each B."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from hsa2c.observe.plot import COLOURS, STYLE, save

    colours = {B: COLOURS[i % len(COLOURS)] for i, B in enumerate(sorted(set(options.B)))}
    down, across = sorted(set(options.p)), sorted(set(options.nodes))
    with rc_context(STYLE):
        size = (3.2 * len(across) + 1.2, 2.6 * len(down) + 0.6)
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        panels = figure.subplots(len(down), len(across), sharex=True, sharey=True, squeeze=False)
        for cell, history in histories.items():
            axes = panels[down.index(cell.p), across.index(cell.nodes)]
            axes.set_title(f"nodes = {cell.nodes}, p = {cell.p}", loc="left", fontsize=10, fontweight="normal")
            curve = [row for row in history if row.get("score/mean_100") is not None]
            along = [row["elapsed_s"] / 60 if x == "minutes" else row["agent_steps"] / 1000 for row in curve]
            axes.plot(along, [row["score/mean_100"] for row in curve], color=colours[cell.B])
        handles = [Line2D([], [], color=colour, label=f"B = {B}") for B, colour in colours.items()]
        figure.legend(handles=handles, loc="outside right center")
        figure.supxlabel("wall-clock minutes" if x == "minutes" else "agent steps (thousands)", fontsize=10)
        figure.supylabel("mean score of the last 100 games", fontsize=10)
        figure.suptitle(f"{options.game}, seed {options.seed}", x=0.01, ha="left", fontweight="bold")
        output = Path(options.run_dir) / f"{options.game}-seed-{options.seed}-by-{x}.png"
        save(figure, output)
    return str(output)


if __name__ == "__main__":
    sys.exit(main())
