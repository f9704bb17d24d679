"""Fig. 1 to 4: DPSVI's speed-up over its own serial run (TSP, Eq. 12), and perplexity against time.

small   on `pydocs`, K = 20, by the paper's rates (Eq. 13, 0.1): runs of `python -m examples.lda` with as many processes
        as this machine can bear, and the paper's numbers of workers and threads over the simulated clock
        (`bench.paper.simulated_topics`), where updates are real and their time is told.
paper   NYTimes, K = 50, 5,000 documents for validation and for test.

The serial run is B = p = nW = 1 with the figure's M (section 4.1.1). The goal of both is 5 % above what it came to.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.paper.jobs import Job, complete, history
from bench.paper.published import LINEAR_UP_TO, SAYS
from bench.testbed.results import Results
from bench.testbed.runs import execute

CELL = ("nodes", "p", "B")
_SLACK = 1.05  # the goal over the serial run's best perplexity: seeds end up to 3 % apart
_TAG = "perplexity/validation"
_NYTIMES = ("--corpus", "docword.nytimes.txt.gz", "--vocab", "vocab.nytimes.txt")
_PARTS = ("--validation", "5000", "--test", "5000", "--topics", "50", "--batch", "64")
_PAPER_HOSTS = 9  # beside the head node (section 4.1)
_SIMULATED_LIMIT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What is varied."""

    M: int
    across: str
    """What is on the x axis: workers, threads, or both."""
    paper: tuple[tuple[int, int, int], ...]
    """nW, p, B."""
    small: tuple[tuple[int, int, int], ...]
    """The same, of runs on this machine."""
    update_ms: tuple[float, ...] = (300.0,)
    """Of updates over the simulated clock."""


_BS = (5, 10, 15, 20)
FIGURES = {
    "fig1": Figure(
        M=36,
        across="workers, nW",
        paper=tuple((nodes, 1, 1) for nodes in (4, 9, 14, 19)),
        small=((2, 1, 1), (4, 1, 1)),
        update_ms=(300.0, 10.0),
    ),
    "fig2": Figure(
        M=16,
        across="threads, p",
        paper=tuple((1, p, 15) for p in (1, 3, 5, 8, 10)),
        small=((1, 1, 15), (1, 2, 15), (1, 4, 15)),
    ),
    "fig3": Figure(
        M=16,
        across="workers and threads, nW = p",
        paper=tuple((n, n, B) for B in _BS for n in (1, 2, 4, 6, 8)),
        small=tuple((n, n, B) for B in _BS for n in (1, 2)),
    ),
    "fig4": Figure(
        M=16,
        across="seconds of training",
        paper=tuple((n, n, 15) for n in (2, 4, 6, 8)),
        small=((1, 1, 15), (2, 2, 15)),
    ),
}
SERIAL = (1, 1, 1)


# What is measured.


def small(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    """Measure what is missing; curves, a row for each run."""
    figure = FIGURES[options.what]
    found = []
    for number in range(options.rounds):
        if "measured" in options.parts:
            found += _measured(options, results, figure, number)
        if "simulated" in options.parts:
            for update_ms in figure.update_ms:
                found += _simulated(options, results, figure, update_ms, number)
    return found


def _measured(options: argparse.Namespace, results: Results, figure: Figure, number: int) -> list[dict[str, Any]]:
    """One round of runs on this machine, one after the other."""

    def run(cell: tuple[int, int, int], goal: float | None) -> dict[str, Any]:
        key = {"kind": "measured", "M": figure.M, **dict(zip(CELL, cell, strict=True)), "round": number}
        key |= {"passes": options.passes, "corpus": options.corpus}
        kept = results.get(**key)
        if kept is not None:
            return kept
        job = small_job(options, figure, cell, number, goal)
        seen = history(complete(job, Path(options.run_dir) / "runs"))
        return results.put({**key, **curve(seen)})

    serial = run(SERIAL, None)
    return [serial, *(run(cell, goal_of([serial])) for cell in figure.small)]


def small_job(
    options: argparse.Namespace, figure: Figure, cell: tuple[int, int, int], number: int, goal: float | None
) -> Job:
    """A run on `pydocs`; without a goal it is the serial one, which makes so many passes."""
    nodes, p, B = cell
    given = ["--corpus", options.corpus, *(("--vocab", options.vocab) if options.vocab else ()), "--topics", "20"]
    given += ["--rate", "eq13", "--B", str(B), "--M", str(figure.M), "--seed", str(number + 1)]
    given += ["--passes", f"{options.passes:g}"] if goal is None else ["--perplexity", f"{goal:.2f}"]
    for setting in ("measure_every_s=0.1", "output.log_every_s=0.1", "stop.patience=null"):
        given += ["--set", setting]
    size = f"M-{figure.M}-nodes-{nodes}-p-{p}-B-{B}"
    name = f"lda-{Path(options.corpus).name}-{size}-passes-{options.passes:g}-round-{number}"
    return Job(program="lda", name=name, options=tuple(given), nodes=nodes, p=p, minutes=options.minutes or 1.0)


def _simulated(
    options: argparse.Namespace, results: Results, figure: Figure, update_ms: float, number: int
) -> list[dict[str, Any]]:
    """The paper's cells over the simulated clock, two at a time: what they show is not this machine's time."""

    def key(cell: tuple[int, int, int]) -> dict[str, Any]:
        sizes = dict(zip(CELL, cell, strict=True))
        chosen = {"passes": options.passes, "corpus": options.corpus, "round": number}
        return {"kind": f"simulated, {update_ms:g} ms an update", "M": figure.M, **sizes, **chosen}

    def run(cell: tuple[int, int, int], goal: float) -> dict[str, Any]:
        passes = options.passes * (1 if cell == SERIAL else 15)
        setting = {"nodes": cell[0], "p": cell[1], "B": cell[2], "M": figure.M, "topics": 20, "passes": passes}
        setting |= {"source": options.corpus, "vocabulary": options.vocab}
        setting |= {"update_s": update_ms / 1000, "perplexity": goal, "seed": number + 1}
        if cell == SERIAL:  # one process, which has nothing to send
            setting |= {"bits_per_s": 1e15, "latency_s": 0.0, "master_s": 0.0}
        command = [sys.executable, "-m", "bench.paper.simulated_topics", json.dumps(setting)]
        found = json.loads(execute(command, _SIMULATED_LIMIT_S))
        return {name: found[name] for name in ("seconds", "perplexity", "negative")}

    serial = results.get(**key(SERIAL)) or results.put({**key(SERIAL), **run(SERIAL, 0.0)})
    missing = [cell for cell in figure.paper if results.get(**key(cell)) is None]
    with ThreadPoolExecutor(2) as pool:
        for cell, found in zip(missing, pool.map(lambda cell: run(cell, goal_of([serial])), missing), strict=True):
            results.put({**key(cell), **found})
    return [serial, *(results.get(**key(cell)) or {} for cell in figure.paper)]


def paper_jobs(what: str) -> list[Job]:
    """The figure's runs as published; how long they were is not stated: 20 passes, or an hour."""
    figure = FIGURES[what]
    common = [*_NYTIMES, *_PARTS, "--rate", "eq13", "--passes", "20", "--set", "stop.patience=null"]
    jobs = []
    for nodes, p, B in dict.fromkeys([SERIAL, *figure.paper]):
        jobs.append(
            Job(
                program="lda",
                name=f"lda-M-{figure.M}-nodes-{nodes}-p-{p}-B-{B}",
                options=(*common, "--B", str(B), "--M", str(figure.M)),
                nodes=nodes,
                p=p,
                minutes=60,
                key={"M": figure.M, "nodes": nodes, "p": p, "B": B},
                master_alone=True,
                most_hosts=_PAPER_HOSTS,
            )
        )
    # Hoffman's algorithm with the best of section 4.1's settings, to see the serial run by.
    svi = (*_NYTIMES, *_PARTS[:-2], "--svi", "--passes", "20", "--set", "stop.patience=null")
    jobs.append(Job(program="lda", name="lda-svi", options=svi, nodes=1, p=1, minutes=60, key={"svi": True}))
    return jobs


def from_runs(jobs: Iterable[Job], folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Curves of those that are there."""
    found = []
    for job in jobs:
        seen = history(folder / job.name)
        if seen and "svi" not in job.key:
            found.append({"kind": "cluster", **job.key, "round": 0, **curve(seen)})
    return found


def curve(seen: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Seconds and perplexity of a run's measurements: a row repeats the last one where there is no newer."""
    seconds, perplexity = [], []
    for row in seen:
        value = None if row.get(_TAG) is None else round(row[_TAG], 3)
        if value is not None and (not perplexity or value != perplexity[-1]):
            seconds.append(row["elapsed_s"])
            perplexity.append(value)
    return {"seconds": seconds, "perplexity": perplexity}


# What it comes to.


def goal_of(runs: Sequence[dict[str, Any]]) -> float:
    """A perplexity that all of them have reached: 5 % above the best of the worst."""
    return _SLACK * max(min(run["perplexity"], default=math.inf) for run in runs)


def seconds_to(run: dict[str, Any], goal: float) -> float | None:
    """When a curve came to a perplexity, on a straight line between two measurements; None if it did not."""
    before: tuple[float, float] | None = None
    for seconds, perplexity in zip(run["seconds"], run["perplexity"], strict=True):
        if perplexity <= goal:
            if before is None:
                return float(seconds)
            share = (before[1] - goal) / (before[1] - perplexity)
            return float(before[0] + share * (seconds - before[0]))
        before = seconds, perplexity
    return None


def speedups(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """TSP of each cell, by kind; over rounds the median, least and most. A row for each."""
    lines = []
    for kind in dict.fromkeys(run["kind"] for run in found):
        runs = [run for run in found if run["kind"] == kind]
        serials = {run.get("round", 0): run for run in runs if _cell(run) == SERIAL}
        every = list(serials.values()) if kind != "cluster" else runs  # those stop at the goal that the serial run set
        for cell in dict.fromkeys(_cell(run) for run in runs if serials):
            tsp, seconds = [], []
            for run in (run for run in runs if _cell(run) == cell):
                number = run.get("round", 0)
                goal = goal_of(every if kind == "cluster" else [serials[number]])
                base, own = seconds_to(serials[number], goal), seconds_to(run, goal)
                if base is not None and own:
                    tsp.append(base / own)
                    seconds.append(own)
            known = bool(tsp)
            lines.append(
                {
                    "kind": kind,
                    **dict(zip(CELL, cell, strict=True)),
                    "seconds": statistics.median(seconds) if known else None,
                    "TSP": statistics.median(tsp) if known else None,
                    "least": min(tsp) if known else None,
                    "most": max(tsp) if known else None,
                    "runs": len(tsp),
                }
            )
    return lines


def _cell(run: dict[str, Any]) -> tuple[int, int, int]:
    return (run["nodes"], run["p"], run["B"])


# What it looks like.

_MARKERS = {"measured": "s", "cluster": "s"}


def draw(what: str, found: Sequence[dict[str, Any]], output: Path, note: str) -> list[dict[str, Any]]:
    """One picture of what was found; gives back the table's rows."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    from hsa2c.observe.plot import STYLE, save

    with rc_context(STYLE):
        canvas = Canvas(figsize=(8.5, 5.4), dpi=110, layout="constrained")
        axes = canvas.subplots()
        (_draw_curves if what == "fig4" else _draw_speedups)(axes, what, found)
        axes.set_xlabel(FIGURES[what].across)
        axes.set_title(f"The paper's Fig. {what[-1]}, measured here", loc="left")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
        canvas.supxlabel(f"The paper's text: {SAYS[what]}.\n{note}", fontsize=8, color="#555555", x=0.01, ha="left")
        save(canvas, output)
    return speedups(found)


def _draw_speedups(axes: Any, name: str, found: Sequence[dict[str, Any]]) -> None:
    """A line for each kind and, where it is varied, each B."""
    from hsa2c.observe.plot import COLOURS

    at = {"fig1": 0, "fig2": 1, "fig3": 0}[name]  # which of the cell's numbers is on the x axis
    lines = [line for line in speedups(found) if line["TSP"] is not None]
    Bs = sorted({line["B"] for line in lines if _cell(line) != SERIAL})
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    for (i, kind), (j, B) in ((a, b) for a in enumerate(kinds) for b in enumerate(Bs)):
        points = [line for line in lines if line["kind"] == kind and line["B"] == B]
        x, y = [_cell(point)[at] for point in points], [point["TSP"] for point in points]
        errors = [[p["TSP"] - p["least"] for p in points], [p["most"] - p["TSP"] for p in points]]
        real = kind in _MARKERS
        axes.errorbar(
            x, y, yerr=errors, color=COLOURS[j if len(Bs) > 1 else i], linestyle="none" if real else "-",
            marker=_MARKERS.get(kind, "o"), markersize=8 if real else 4, capsize=3,
            markerfacecolor="none" if real else None, label=f"{kind}, B = {B}" if len(Bs) > 1 else kind,
        )  # fmt: skip
    if name in LINEAR_UP_TO:
        axes.axvspan(0, LINEAR_UP_TO[name], color="#999999", alpha=0.15, linewidth=0, label="linear in the paper")
        most = max((_cell(line)[at] for line in lines), default=1)
        axes.plot([0, most], [0, most], ":", color="#777777", label="as many times as fast")
    axes.set_xticks(sorted({_cell(line)[at] for line in lines}))
    axes.set_ylabel("TSP over the serial run (Eq. 12)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def _draw_curves(axes: Any, name: str, found: Sequence[dict[str, Any]]) -> None:
    """Perplexity over time on a logarithmic axis."""
    from hsa2c.observe.plot import COLOURS

    sizes = sorted({_cell(run) for run in found})
    for run in found:
        if run.get("round", 0) == 0 and run["seconds"]:
            cell = _cell(run)
            what = "serial (B = 1)" if cell == SERIAL else f"DPSVI-{cell[0]}"
            real = run["kind"] in _MARKERS
            colour = COLOURS[sizes.index(cell) % len(COLOURS)]
            look = "--" if real else "-"
            axes.plot(run["seconds"], run["perplexity"], look, color=colour, label=f"{what}, {run['kind']}")
    axes.set_xscale("log")
    axes.set_ylabel("perplexity of held-out documents")
