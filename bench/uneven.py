"""Slow and uneven environments, beside libraries that wait for the slowest: ``python -m bench.uneven``.

A step takes 0.1 to 10 ms, lognormal, and now and then a second. One process in eight is 4 times slower. The environment
sleeps, so waiting is compared, and not processors. The ideal is what as many processes make that do nothing but step.
Ours has its defaults: each process steps its 8 environments one after another, and learns from all of it; samples of
a rollout that the end cuts off are not counted. Gymnasium's AsyncVectorEnv and Stable-Baselines3's SubprocVecEnv have
as many processes, with one environment in each, and only act at random.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import gymnasium
import numpy as np

import hsa2c
from bench.testbed import machine

_MEDIAN_S, _SIGMA = 1e-3, 1.15  # 95 % of the steps take 0.1 to 10 ms
_PAUSE, _PAUSE_S = 1 / 5000, 1.0
_SLOW = 4.0


_made = multiprocessing.Value("i", 0)
"""Processes that have made an environment, in this turn."""


@functools.cache
def _number(process: int) -> int:
    """Of a process, in the order in which processes make their first environment: every eighth is slow."""
    with _made.get_lock():
        before: int = _made.value
        _made.value = before + 1
    return before


class Uneven(gymnasium.Env[Any, Any]):
    """Sleeps for a random while in each step; the agent's part is to say 1."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (8,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self._factor = _SLOW if _number(os.getpid()) % 8 == 7 else 1.0
        self._random = np.random.default_rng()
        self._t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new episode."""
        self._t = 0
        return self._look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Sleep."""
        time.sleep(self._factor * float(self._random.lognormal(np.log(_MEDIAN_S), _SIGMA)))
        if self._random.random() < _PAUSE:
            time.sleep(_PAUSE_S)
        self._t += 1
        return self._look(), float(action), False, self._t >= 200, {}

    def _look(self) -> Any:
        return self._random.uniform(-1, 1, 8).astype(np.float32)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if ours keeps less than 0.9 of the ideal."""
    p = argparse.ArgumentParser(prog="bench.uneven", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--processes", type=int, default=8, metavar="N", help="of each system (8)")
    p.add_argument("--seconds", type=float, default=40.0, help="of each system, each time (40)")
    p.add_argument("--turns", type=int, default=3, help="times that each has its turn (3)")
    p.add_argument("--json", action="store_true")
    options = p.parse_args(arguments)
    facts = machine.describe()
    print(machine.headline(facts), file=sys.stderr)
    systems = {"ideal": _ideal, "hsa2c": _ours, "AsyncVectorEnv": _gymnasium, "SubprocVecEnv": _sb3}
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(options.turns):
        for name, measure in systems.items():
            _made.value = 0
            _number.cache_clear()
            speeds[name].append(measure(options.processes, options.seconds))
            print(f"{name}: {speeds[name][-1]:,.0f} steps/s", file=sys.stderr, flush=True)
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    shares = {name: round(median / medians["ideal"], 3) for name, median in medians.items()}
    if options.json:
        print(json.dumps({"machine": facts, "steps_per_s": speeds, "share_of_ideal": shares}))
    else:
        for name, median in medians.items():
            print(f"{name:15} {median:8,.0f} steps/s  {shares[name]:.2f} of the ideal")
    return 0 if shares["hsa2c"] >= 0.9 else 1


def _alone(seconds: float, steps: Any) -> None:
    env = Uneven()
    env.reset()
    end, done = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        env.step(1)
        done += 1
    with steps.get_lock():
        steps.value += done


def _ideal(processes: int, seconds: float) -> float:
    """Each environment on its own."""
    context = multiprocessing.get_context("fork")
    steps = context.Value("q", 0)
    running = [context.Process(target=_alone, args=(seconds, steps)) for _ in range(processes)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    return float(steps.value) / seconds


def _ours(processes: int, seconds: float) -> float:
    """Trains meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        run = hsa2c.train(env=Uneven, p=processes, minutes=seconds / 60, progress=False, run_dir=folder)
        row = run.rows()[-1]
    return float(row["agent_steps"]) / float(row["elapsed_s"])


def _gymnasium(processes: int, seconds: float) -> float:
    """Gymnasium's own, a process for each environment."""
    envs = gymnasium.vector.AsyncVectorEnv([Uneven] * processes)
    envs.reset()
    began_at, steps = time.monotonic(), 0
    while time.monotonic() - began_at < seconds:
        envs.step(envs.action_space.sample())
        steps += processes
    speed = steps / (time.monotonic() - began_at)
    envs.close()
    return speed


def _sb3(processes: int, seconds: float) -> float:
    """Stable-Baselines3's, a process for each environment."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    envs = SubprocVecEnv([Uneven] * processes, start_method="fork")
    envs.reset()
    began_at, steps = time.monotonic(), 0
    while time.monotonic() - began_at < seconds:
        envs.step(np.ones(processes, int))
        steps += processes
    speed = steps / (time.monotonic() - began_at)
    envs.close()
    return speed


if __name__ == "__main__":
    sys.exit(main())
