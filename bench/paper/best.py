"""Table 2: best score and its minutes for six games, beside the published rows.

A score of ours is the mean of whole games that `evaluate.py` played with a run's best checkpoint; its minutes are those
of training until that checkpoint.

small   the runs or checkpoints of --runs, and each game of which there is none for a few minutes at the shipped
        defaults.
paper   the runs of Fig. 6: of each game the nodes and B with the best training score, the mean over five seeds; and the
        baseline, `configs/paper/ddrl_a3c.yaml`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.paper import atari
from bench.paper.jobs import Job, complete, history, say
from bench.paper.published import ELSEWHERE, GAMES, REPEATS, TABLE, Entry
from bench.testbed.results import Results
from bench.testbed.runs import execute
from hsa2c.cluster.machine import cores
from hsa2c.envs.published import PUBLISHED
from hsa2c.run import checkpoint as checkpoints

_EVALUATION_S = 1800.0  # of 30 games of up to half an hour of play, and a machine that is busy


def small(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    """Train and evaluate what is missing."""
    folder = Path(options.run_dir) / "runs"
    minutes = options.minutes or 5.0
    given = _given(options, results)
    there = {row["game"] for row in given}
    found = []
    for seed in options.seeds:
        for game in options.games or [game for game in GAMES if game not in there]:
            job = small_job(game, seed, minutes)
            say(f"{job.name}")
            row = evaluated(complete(job, folder), options.evaluate, results)
            found.append({"group": f"this project, {minutes:g} min", **row})
    return found + given


def _given(options: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    return [{"group": "this project, --runs", **evaluated(path, options.evaluate, results)} for path in options.runs]


def small_job(game: str, seed: int, minutes: float) -> Job:
    """One node with all of this machine's cores."""
    name = f"table2-{game}-seed-{seed}-minutes-{minutes:g}"
    given = ("--game", game, "--seed", str(seed))
    return Job(program="train", name=name, options=given, nodes=1, p=cores(), minutes=minutes)


def evaluated(target: Path, games: int, results: Results) -> dict[str, Any]:
    """What `evaluate.py` finds of a run's best checkpoint, and how that was trained; once for each checkpoint."""
    trained, path, _ = checkpoints.read(target, prefer="best")
    key = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "games": games}
    kept = results.get(**key)
    if kept is None:
        command = [sys.executable, "-m", "hsa2c", "evaluate", str(path), "--games", str(games), "--json"]
        played = json.loads(execute(command, _EVALUATION_S))
        config = trained.config
        kept = results.put(
            {
                **key,
                "game": played["game"],
                **{name: played[name] for name in ("mean", "min", "max", "protocol")},
                "minutes": round(trained.counters["elapsed_s"] / 60, 2),
                "agent_steps": trained.counters["agent_steps"],
                "nodes": config["cluster"]["nodes"],
                "p": config["cluster"]["processes"],
                "B": config["dpsgd"]["local_updates"],
                "seed": config["seed"],
            }
        )
    return kept


def paper_jobs(what: str) -> list[Job]:
    """Those of Fig. 6, and the baseline's."""
    baseline = [
        Job(
            program="train",
            name=f"ddrl-{game}-seed-{seed}",
            options=("--config", "paper/ddrl_a3c", "--game", game, "--seed", str(seed)),
            nodes=64,
            p=1,
            minutes=30,  # as the others; 21 are published, of another machine
            key={"game": game, "nodes": 64, "B": 1, "seed": seed, "baseline": True},
        )
        for game in GAMES
        for seed in range(1, REPEATS + 1)
    ]
    return [*atari.jobs(), *baseline]


def from_runs(jobs: Iterable[Job], folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Of each game the best cell of those that are there, by training score; its runs are evaluated."""
    cells: dict[tuple[bool, str, int, int], list[tuple[Path, float]]] = {}
    for job in jobs:
        best = atari.scores(history(folder / job.name))["score"]
        if best:
            cell = (job.key.get("baseline", False), job.key["game"], job.key["nodes"], job.key["B"])
            cells.setdefault(cell, []).append((folder / job.name, best[-1]))
    results = Results(folder / "table2.jsonl")
    found = []
    for baseline, game in dict.fromkeys((cell[0], cell[1]) for cell in cells):
        own = [runs for cell, runs in cells.items() if cell[:2] == (baseline, game)]
        chosen = max(own, key=lambda runs: statistics.fmean(score for _, score in runs))
        group = "this project, DDRL A3C" if baseline else "this project, HSA2C"
        found += [{"group": group, **evaluated(path, options.evaluate, results)} for path, _ in chosen]
    return found + _given(options, results)


def rows(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table: published rows, those from elsewhere, ours."""
    lines = [_published(entry, "published") for entry in TABLE]
    lines += [_published(entry, "elsewhere") for entry in ELSEWHERE]
    for group in dict.fromkeys(row["group"] for row in found):
        lines.append(_ours(group, [row for row in found if row["group"] == group]))
    return lines


def _published(entry: Entry, mark: str) -> dict[str, Any]:
    scores = {game: None if x is None else float(x) for game, x in zip(GAMES, entry.scores, strict=True)}
    mean = None if entry.mean is None else float(entry.mean)
    return {
        "row": entry.name, "is": mark, **scores, "mean": mean, "minutes": entry.minutes,
        "of what": "; ".join(text for text in (entry.source, entry.note) if text),
    }  # fmt: skip


def _ours(group: str, own: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; the mean over games only where all six are there."""
    scores = {game: [row["mean"] for row in own if row["game"] == game] for game in GAMES}
    means = {game: statistics.fmean(each) if each else None for game, each in scores.items()}
    known = [mean for mean in means.values() if mean is not None]
    seeds = sorted({row["seed"] for row in own})
    sizes = sorted({f"{row['nodes']} x {row['p']}, B = {row['B']}" for row in own})
    minutes = dict.fromkeys(f"{row['minutes']:.1f}" for row in sorted(own, key=lambda row: row["minutes"]))
    first, *_, last = [*minutes, *minutes]
    return {
        "row": group,
        "is": "measured here",
        **means,
        "mean": statistics.fmean(known) if len(known) == len(GAMES) else None,
        "minutes": first if first == last else f"{first} to {last}",
        "of what": f"nodes x p: {'; '.join(sizes)}; seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
    }


def draw(what: str, found: Sequence[dict[str, Any]], output: Path, note: str) -> list[dict[str, Any]]:
    """A panel of bars for each game; gives back the table's rows."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from hsa2c.observe.plot import COLOURS, STYLE, save

    lines = rows(found)
    colours = dict(zip(("published", "elsewhere", "measured here"), (COLOURS[1], "#AAAAAA", COLOURS[0]), strict=True))
    with rc_context(STYLE):
        figure = Figure(figsize=(13, 7), dpi=110, layout="constrained")
        for panel, game in zip(figure.subplots(2, 3).ravel(), GAMES, strict=True):
            known = [line for line in lines if line[game] is not None][::-1]
            names = [line["row"] if line["is"] != "elsewhere" else f"{line['row']}\n{_short(line)}" for line in known]
            panel.barh(range(len(known)), [line[game] for line in known], color=[colours[line["is"]] for line in known])
            panel.set_yticks(range(len(known)), [_wrapped(name) for name in names], fontsize=7)
            panel.axvline(PUBLISHED[game].random, color="#000000", linestyle=":", linewidth=1)
            panel.set_title(game, loc="left")
        text = (
            "Orange: the paper's Table 2, as far as text and sources tell. Grey: published elsewhere. Blue: measured "
            f"here.\nDotted: random play. {note} Ours: whole games by evaluate.py; the table has the minutes."
        )
        figure.supxlabel(text, fontsize=8, color="#555555", x=0.01, ha="left")
        save(figure, output)
    return lines


def _short(line: dict[str, Any]) -> str:
    return str(line["of what"]).partition(";")[0]


def _wrapped(name: str) -> str:
    return name.replace(", ", ",\n", 1) if name.startswith("this project") else name
