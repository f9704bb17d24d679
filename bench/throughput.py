"""How much of the emulator's own speed is left once the agent learns: ``python -m bench.throughput``.

In turns, so that both see the same machine: the emulators alone (the same vector environments, random actions, p
processes, no network), and training at the shipped defaults through `train.py`. Prints the medians over the rounds,
their ratio, where an actor-learner spends its time, and the memory of the whole run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from bench.testbed import machine
from bench.testbed.runs import rows
from hsa2c.cluster.machine import cap_threads, cores, keep_freed_memory

_SEED = 1


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    game: str
    nodes: int
    processes: int
    seconds: float
    warm_up_s: float
    options: tuple[str, ...]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    options = _parse(arguments)
    cap_threads()
    setting = Setting(
        options.game, options.nodes, options.p, options.seconds, options.warm_up, tuple(options.train or ())
    )
    facts = machine.describe()
    print(machine.headline(facts), file=sys.stderr)
    emulator: list[float] = []
    training: list[dict[str, Any]] = []
    for number in range(options.rounds):
        emulator.append(_emulator_speed(setting))
        training.append(_training(setting))
        print(
            f"round {number + 1} of {options.rounds}: emulator {emulator[-1]:,.0f}, training"
            f" {training[-1]['agent_steps_per_s']:,.0f} agent steps/s",
            file=sys.stderr,
        )
    result = _summary(setting, facts, emulator, training)
    if options.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench.throughput", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--game", default="Pong")
    p.add_argument("--nodes", type=int, default=1)
    p.add_argument("--p", type=int, default=2, help="processes a node (2)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=30.0, help="measured in each round, of each (30)")
    p.add_argument("--warm-up", type=float, default=10.0, help="seconds of training before that (10)")
    p.add_argument("--train", action="append", metavar="OPTION", help="passed on to train.py, such as --train=--B=16")
    p.add_argument("--json", action="store_true")
    return p.parse_args(arguments)


# The emulators alone.


def _emulator_speed(setting: Setting) -> float:
    """Agent steps/s of nodes x p processes that play random actions."""
    context = multiprocessing.get_context("spawn")
    workers = setting.nodes * setting.processes
    barrier = context.Barrier(workers)
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_play, args=(setting, index, barrier, results), daemon=True) for index in range(workers)
    ]
    for process in processes:
        process.start()
    speeds = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return float(sum(speeds))


def _play(setting: Setting, index: int, barrier: Barrier, results: Any) -> None:
    import numpy as np

    from hsa2c.agents.settings import AgentConfig
    from hsa2c.envs.atari import AtariEnvs
    from hsa2c.envs.names import resolve_game
    from hsa2c.envs.settings import EnvConfig

    keep_freed_memory()
    num_envs = AgentConfig().environments(setting.processes, setting.processes, cores())
    envs = AtariEnvs(resolve_game(setting.game), EnvConfig(), num_envs, seed=_SEED + index * num_envs)
    random = np.random.default_rng(index)
    envs.reset()
    barrier.wait()
    steps = 0
    began_at = time.perf_counter()
    while time.perf_counter() - began_at < setting.seconds:
        steps += int(np.count_nonzero(envs.step(random.integers(0, envs.num_actions, num_envs)).valid))
    results.put(steps / (time.perf_counter() - began_at))


# Training.


def _training(setting: Setting) -> dict[str, Any]:
    """Steady-state speed, split of time, and peak memory of one run of train.py."""
    with tempfile.TemporaryDirectory(prefix="hsa2c-bench-") as folder:
        command = [sys.executable, "-m", "hsa2c", "train", "--game", setting.game, "--nodes", str(setting.nodes)]
        command += ["--p", str(setting.processes), "--run-dir", folder, "--name", "run", "--seed", str(_SEED)]
        command += ["--minutes", str((setting.warm_up_s + setting.seconds) / 60), "--set", "output.log_every_s=1"]
        command += setting.options
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        peak = 0.0
        try:
            while run.poll() is None:
                time.sleep(2.0)  # reading the sizes of a process stops it for a moment: seldom
                peak = max(peak, machine.family_pss_mib(run.pid))
            if run.returncode != 0:
                raise SystemExit(f"train.py failed ({run.returncode}): {run.stderr.read() if run.stderr else ''}")
        finally:
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)
                run.wait()
            if run.stderr:
                run.stderr.close()
        history = rows(Path(folder) / "run")
    return {**_steady(history, setting.warm_up_s), "peak_pss_mib": peak}


def _steady(history: list[dict[str, Any]], warm_up_s: float) -> dict[str, Any]:
    """Speed between the first row after the warm-up and the last, and the mean shares of time there."""
    steady = [row for row in history if row["elapsed_s"] >= warm_up_s]
    first, last = steady[0], steady[-1]
    shares = sorted({key for row in steady for key in row if key.startswith("time/") and key.endswith("_share")})
    return {
        "agent_steps_per_s": (last["agent_steps"] - first["agent_steps"]) / (last["elapsed_s"] - first["elapsed_s"]),
        "shares": {
            key.removeprefix("time/").removesuffix("_share"): statistics.fmean(
                row[key] for row in steady if row.get(key) is not None
            )
            for key in shares
        },
    }


def _summary(
    setting: Setting, facts: dict[str, Any], emulator: list[float], training: list[dict[str, Any]]
) -> dict[str, Any]:
    speeds = [run["agent_steps_per_s"] for run in training]
    return {
        "game": setting.game,
        "nodes": setting.nodes,
        "p": setting.processes,
        "options": list(setting.options),
        "emulator_steps_per_s": statistics.median(emulator),
        "training_steps_per_s": statistics.median(speeds),
        "ratio": statistics.median(speed / alone for speed, alone in zip(speeds, emulator, strict=True)),
        "shares": {
            name: statistics.median(run["shares"].get(name, 0.0) for run in training) for name in training[0]["shares"]
        },
        "peak_pss_mib": max(run["peak_pss_mib"] for run in training),
        "rounds": {"emulator": emulator, "training": speeds},
        "machine": facts,
    }


def _print(result: dict[str, Any]) -> None:
    print(
        f"{result['game']}, nodes = {result['nodes']}, p = {result['p']},"
        f" median of {len(result['rounds']['training'])} rounds"
    )
    print(f"  emulator alone  {result['emulator_steps_per_s']:8,.0f} agent steps/s")
    print(f"  training        {result['training_steps_per_s']:8,.0f} agent steps/s")
    print(f"  ratio           {result['ratio']:8.3f}")
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in result["shares"].items())
    print(f"  an actor-learner's time: {shares}")
    print(f"  peak memory (PSS) of the run: {result['peak_pss_mib']:,.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
