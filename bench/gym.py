"""How soon it solves Gymnasium's environments, beside Stable-Baselines3: ``python -m bench.gym``.

Each environment, each seed, each system in turns on the same cores: ours with its defaults (MuJoCo's environments with
``configs/gym/mujoco.yaml``), SB3's PPO and A2C with the settings of its zoo. The time is from the command to the row or
the step at which the mean of the last 100 training episodes is at the score, start-up included. Then medians, and the
interquartile mean over all seeds of an environment with a 95 % bootstrap interval (Agarwal et al. 2021). ``--part
mujoco``: no score is waited for, but the score after 1M steps, and the time until then. ``--out FILE.jsonl`` keeps each
finished run with its curve, and a second call goes on where the first stopped; ``--plot FILE`` draws the curves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.gym_curves import draw
from bench.testbed import machine
from hsa2c.observe.runlog import number, read_history

#: Environment to the score at which it counts as solved.
CLASSIC = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0, "LunarLander-v3": 200.0, "Pendulum-v1": -200.0}
MUJOCO = ("Hopper-v5", "HalfCheetah-v5", "Walker2d-v5")

_NEVER = 1e9  # a score that nobody reaches


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if one of our runs did not reach its score."""
    options = _parse(arguments)
    facts = machine.describe()
    print(machine.headline(facts), file=sys.stderr)
    wanted = options.envs or (list(CLASSIC) if options.part == "classic" else list(MUJOCO))
    systems = options.systems or (["hsa2c", "ppo", "a2c"] if options.part == "classic" else ["hsa2c", "ppo"])
    kept = {} if options.out is None else read(options.out)
    results: list[dict[str, Any]] = []
    for env in wanted:
        for seed in options.seeds:
            for system in systems:
                what = {"env": env, "seed": seed, "system": system, **_limits(options, env)}
                result = kept.get(_key(what))
                if result is None:
                    result = {**what, **_run(what)}
                    if options.out is not None:
                        keep(options.out, result)
                results.append(result)
                print(_line(result), file=sys.stderr, flush=True)
    table = [_summary(env, system, results) for env in wanted for system in systems]
    if options.plot is not None:
        draw(results, options.plot)
    if options.json:
        print(json.dumps({"machine": facts, "runs": results, "table": table}))
    else:
        for row in table:
            print("  ".join(f"{key} {value}" for key, value in row.items()))
    ours = [result for result in results if result["system"] == "hsa2c"]
    return 0 if options.part == "mujoco" or all(result["reached_s"] is not None for result in ours) else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench.gym", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--part", choices=("classic", "mujoco"), default="classic")
    p.add_argument("--envs", nargs="+", metavar="ID", help="others than those of the part")
    p.add_argument("--systems", nargs="+", metavar="NAME", help="hsa2c, ppo, a2c (all; mujoco: not a2c)")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="SEED")
    p.add_argument("--minutes", type=float, help="give a run up after (5; mujoco: 60)")
    p.add_argument("--steps", type=int, default=1_000_000, help="of a run of mujoco (1M)")
    p.add_argument("--out", type=Path, metavar="FILE.jsonl", help="keep finished runs here, and do none of them again")
    p.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves; the ending tells the format")
    p.add_argument("--json", action="store_true")
    return p.parse_args(arguments)


def _limits(options: argparse.Namespace, env: str) -> dict[str, float]:
    if options.part == "mujoco":
        return {"until": _NEVER, "minutes": options.minutes or 60.0, "limit": options.steps}
    return {"until": CLASSIC.get(env, _NEVER), "minutes": options.minutes or 5.0, "limit": 10**8}


def _key(result: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(result[name] for name in ("env", "seed", "system", "until", "minutes", "limit"))


def read(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Runs that an earlier call has finished; a last line that is not whole is as if it was not there."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    results = [json.loads(line) for line in lines if line.endswith("\n")]
    return {_key(result): result for result in results}


def keep(path: Path, result: dict[str, Any]) -> None:
    """Add a finished run, after whole lines alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.read_bytes().rpartition(b"\n")[:2] if path.exists() else ()
    with path.open("r+b" if path.exists() else "xb") as file:
        file.truncate(file.seek(sum(map(len, whole))))
        file.write(json.dumps(result).encode() + b"\n")


def _run(what: dict[str, Any]) -> dict[str, Any]:
    env, seed, system, *limits = _key(what)
    if system == "hsa2c":
        return ours(env, seed, *limits)
    command = [sys.executable, "-m", "bench.gym_peer", env, system, *map(str, (seed, *limits))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench.gym: {env} {system}: {done.stderr.strip().splitlines()[-1:]}")
    *points, last = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {**last, "curve": [point["point"] for point in points]}


def ours(env: str, seed: int, score: float, minutes: float, steps: int) -> dict[str, Any]:
    """One run of ours by command, and its curve: agent steps, seconds and score of each row."""
    with tempfile.TemporaryDirectory() as folder:
        limits = ["--minutes", str(minutes), "--agent-steps", str(steps)]
        limits += ["--score", str(score)] if score < _NEVER else []
        where = ["--run-dir", folder, "--name", "run", "--set", "output.log_every_s=0.25"]
        began_at = time.time()
        where += ["--config", "gym/mujoco"] if env in MUJOCO else []
        command = [sys.executable, "train.py", "--env", env, "--seed", str(seed), *limits, *where]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.time() - began_at
        if done.returncode != 0:
            raise SystemExit(f"bench.gym: {env}: {done.stderr.strip().splitlines()[-1:]}")
        rows = [row for row in read_history(Path(folder) / "run") if number(row.get("score/mean_100")) is not None]
    best = [number(row.get("score/best_mean_100")) for row in rows]
    at = next((k for k, mean in enumerate(best) if mean is not None and mean >= score), None)
    last = rows[-1]
    curve = [[row["agent_steps"], row["time"] - began_at, row["score/mean_100"]] for row in rows]
    return {
        "reached_s": None if at is None else rows[at]["time"] - began_at,
        "steps": (last if at is None else rows[at])["agent_steps"],
        "seconds": seconds,
        "score": last["score/mean_100"],
        "curve": curve,
    }


def _line(result: dict[str, Any]) -> str:
    reached = result["reached_s"]
    when = "not reached" if reached is None else f"reached after {reached:.0f} s"
    return (
        f"{result['env']} seed {result['seed']} {result['system']}: {when}, {result['steps']:,} steps,"
        f" {result['seconds']:.0f} s, score {result['score']:,.1f}"
    )


def _summary(env: str, system: str, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    runs = [result for result in results if (result["env"], result["system"]) == (env, system)]
    reached = [run["reached_s"] for run in runs if run["reached_s"] is not None]
    scores = [run["score"] for run in runs]
    low, high = bootstrap(scores)
    return {
        "env": env,
        "system": system,
        "reached": f"{len(reached)}/{len(runs)}",
        "median_s": round(statistics.median(reached), 1) if reached else None,
        "seconds": round(statistics.median(run["seconds"] for run in runs), 1),
        "steps": round(statistics.median(run["steps"] for run in runs)),
        "iqm": round(interquartile_mean(scores), 1),
        "interval": [round(low, 1), round(high, 1)],
    }


def interquartile_mean(values: Sequence[float]) -> float:
    """The mean of the middle half of sorted values, those on its edges in part (Agarwal et al. 2021)."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = len(ordered) / 4
    weights = np.clip(np.arange(1, len(ordered) + 1) - cut, 0, 1)
    weights = np.minimum(weights, weights[::-1])
    return float((ordered * weights).sum() / weights.sum())


def bootstrap(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """A 95 % interval of the interquartile mean, by drawing runs anew."""
    random = np.random.default_rng(0)
    means = [interquartile_mean(random.choice(values, len(values)).tolist()) for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
