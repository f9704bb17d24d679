"""How long until it plays well: ``python -m bench.time_to_score --game Pong --score 18``.

Trains at the shipped defaults through `train.py`, from nothing, until the mean score of the last 100 training games
reaches a goal; the clock starts before the command does, so start-up counts. Then the newest checkpoint, which is
the one of that moment, plays 30 whole games. One run for each seed, one after the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench.testbed import machine
from bench.testbed.runs import events, execute, rows, train

_CAP_MINUTES = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if a seed did not reach the score."""
    options = _parse(arguments)
    facts = machine.describe()
    print(machine.headline(facts), file=sys.stderr)
    runs = []
    for seed in options.seeds:
        run = _train(options, seed)
        run["evaluated"] = _evaluate(Path(run["directory"]), options.games)
        runs.append(run)
        print(_line(options.score, run), file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        print(json.dumps(_summary(options, runs, facts)))
    return 0 if all(run["reached"] for run in runs) else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench.time_to_score", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--game", default="Pong")
    p.add_argument("--score", type=float, default=18.0, help="mean of the last 100 training games to reach (18)")
    p.add_argument("--minutes", type=float, default=_CAP_MINUTES, help=f"give a run up after ({_CAP_MINUTES:g})")
    p.add_argument("--seeds", type=int, nargs="+", default=[1], metavar="SEED")
    p.add_argument("--games", type=int, default=30, help="whole games of the evaluation (30)")
    p.add_argument("--run-dir", default="runs", help="folder that the runs are kept in (runs)")
    p.add_argument("--train", action="append", default=[], metavar="OPTION", help="passed on, such as --train=--p=1")
    p.add_argument("--json", action="store_true")
    return p.parse_args(arguments)


def _train(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run: whether and when it reached the score."""
    goal = f"{options.score:g}".replace("+", "")  # 1e+06 is no name of a run
    name = f"{options.game}-to-{goal}-seed-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    directory = Path(options.run_dir) / name
    limits = ["--score", str(options.score), "--minutes", str(options.minutes)]
    where = ["--run-dir", options.run_dir, "--name", name]
    began_at = time.time()
    train(["--game", options.game, "--seed", str(seed), *limits, *where, *options.train])
    last = rows(directory)[-1]
    (ended,) = events(directory, "stop")
    best = last.get("score/best_mean_100")
    return {
        "seed": seed,
        "directory": str(directory),
        "reached": best is not None and best >= options.score,
        "seconds": round(ended["time"] - began_at, 1),
        "agent_steps": last["agent_steps"],
        "mean_100": last["score/mean_100"],
        "agent_steps_per_s": round(last["agent_steps"] / last["elapsed_s"], 1),
    }


def _evaluate(directory: Path, games: int) -> dict[str, Any]:
    """Scores of the newest checkpoint in whole games."""
    command = [sys.executable, "-m", "hsa2c", "evaluate", str(directory), "--newest", "--games", str(games), "--json"]
    scores = json.loads(execute(command))
    return {key: scores[key] for key in ("mean", "median", "std", "min", "max", "protocol", "checkpoint")}


def _line(goal: float, run: dict[str, Any]) -> str:
    verdict = f"reached {goal:g} after" if run["reached"] else f"did not reach {goal:g} in"
    scores = run["evaluated"]
    last = "not one whole" if run["mean_100"] is None else f"{run['mean_100']:.1f}"
    return (
        f"seed {run['seed']}: {verdict} {run['seconds'] / 60:.1f} min, start-up included"
        f" ({run['agent_steps']:,} agent steps, {run['agent_steps_per_s']:,.0f}/s); last 100 games"
        f" {last}; evaluated {scores['mean']:.1f} ({scores['min']:g} to {scores['max']:g})"
    )


def _summary(options: argparse.Namespace, runs: list[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "game": options.game,
        "score": options.score,
        "options": options.train,
        "seconds": statistics.median(run["seconds"] for run in runs) if all(run["reached"] for run in runs) else None,
        "evaluated": statistics.median(run["evaluated"]["mean"] for run in runs),
        "runs": runs,
        "machine": facts,
    }


if __name__ == "__main__":
    sys.exit(main())
