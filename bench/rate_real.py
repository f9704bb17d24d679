"""The problem of `bench.rate` as an application of the runtime: real processes, lock-free on every node, over MPI.

    python -m bench.rate_real RUN_DIR NAME [SETTING=VALUE ...]

The master's tracker sees every v, and adds up the squared norm of f's gradient there, exactly, over the first T global
steps; then training ends.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from bench.robust_regression import DIM, MU, RobustRegression, Row, Setting
from bench.testbed.results import Results
from bench.testbed.runs import execute, launch_new, rows
from hsa2c.application import Application
from hsa2c.config.loading import build
from hsa2c.config.sections import STRICT, ClusterConfig, DPSGDConfig, OptimiserConfig, OutputConfig, StopConfig
from hsa2c.dpsgd.protocols import Vector
from hsa2c.dpsgd.theory import equal_rates
from hsa2c.observe import shown
from hsa2c.tracker import Tracker

if TYPE_CHECKING:
    import torch

NAME = "bench.rate_real"
_LIMIT_S = 300.0
_NORM = "gradient/mean_squared_norm"


def measured(f: RobustRegression, setting: Setting, seed: int, run_dir: Path) -> tuple[float, int]:
    """Mean squared norm of one run, and its largest delay between nodes; kept in `run_dir`, and not run again."""
    results = Results(run_dir / "rate.jsonl")
    key = {**dataclasses.asdict(setting), "seed": seed}
    kept = results.get(**key) or results.put({**key, **_run(f, setting, seed, run_dir)})
    return float(kept["norm"]), int(kept["delay"])


def _run(f: RobustRegression, setting: Setting, seed: int, run_dir: Path) -> dict[str, Any]:
    s = setting
    rate = equal_rates(f, MU, T=s.T, M=s.M, B_tilde=s.p * s.B)
    name = f"T{s.T}-M{s.M}-p{s.p}-B{s.B}-{seed}-{time.time_ns()}"
    settings = [
        f"seed={seed}",
        f"cluster.nodes={s.M}",
        f"cluster.processes={s.p}",
        f"dpsgd.local_updates={s.B}",
        f"dpsgd.deltas_per_step={s.M}",
        f"dpsgd.global_rate={rate}",
        "dpsgd.exchange=paper",
        "optimiser.name=sgd",
        "optimiser.half_after=null",
        f"optimiser.learning_rate={rate}",
        f"problem.steps={s.T}",
    ]
    command = [sys.executable, "-m", NAME, str(run_dir), name, *settings]
    execute(command, _LIMIT_S)
    history = rows(run_dir / name)
    delays = [row["staleness/max"] for row in history if row["staleness/max"] is not None]
    return {"norm": history[-1][_NORM], "delay": max(delays), "seconds": history[-1]["elapsed_s"]}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProblemConfig:
    """What is minimised."""

    steps: Annotated[int, Field(ge=1)] = 1000
    """Global steps, after which training ends. T."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RateConfig:
    """A run of it."""

    seed: int = 1
    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    dpsgd: DPSGDConfig = dataclasses.field(default_factory=DPSGDConfig)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    problem: ProblemConfig = dataclasses.field(default_factory=ProblemConfig)
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)


class RealRow(Row):
    """`Row` for a u that is a torch tensor."""

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor:
        """See `Problem`."""
        import torch

        return torch.from_numpy(super().gradient(u_hat.numpy(), interrupted).astype(np.float32))


class Norms(Tracker):
    """Adds up squared norms of gradients until T steps are done; see `hsa2c.tracker.Tracker`."""

    quality = None

    def __init__(self, f: RobustRegression, T: int) -> None:
        self._f, self._T = f, T
        self._total = 0.0
        self.work = 0

    def add(self, node: int, report: Mapping[str, Any]) -> None:
        """Processes have nothing to say."""

    def applied(self, node: int, updates: int) -> None:
        """Work is counted otherwise."""

    def measure(self, v: Vector, *, due: bool) -> bool:
        """Called after each global step, and at the end."""
        if not due and self.work < self._T:
            self._total += float(np.sum(self._f.gradient(v) ** 2))
            self.work += 1
        return False

    def row(self, seconds: float) -> dict[str, float | int | None]:
        """The mean over the steps so far."""
        return {_NORM: self._total / self.work if self.work else None}

    def warning(self) -> str | None:
        """None."""
        return None

    def counters(self) -> dict[str, Any]:
        """It is not resumed."""
        return {}

    def reached(self) -> str | None:
        """T."""
        return f"{self._T} global steps" if self.work >= self._T else None

    def progress(self) -> float:
        """Of T."""
        return self.work / self._T


class Rate(Application):
    """See `hsa2c.application.Application`."""

    name = "rate"
    fields = (shown.Field("mean squared norm", _NORM),)
    curve = shown.Field("mean squared norm", _NORM)
    fixed: ClassVar[Sequence[str]] = ()

    def build_config(self, values: Mapping[str, Any]) -> RateConfig:
        """Plain values into a configuration."""
        return build(RateConfig, values)

    def label(self, config: RateConfig) -> str:
        """The first part of a run's name."""
        return self.name

    def title(self, config: RateConfig) -> str:
        """What runs, in one line."""
        return f"rate: T = {config.problem.steps}, {config.cluster.nodes} nodes, B = {config.dpsgd.local_updates}"

    def limits(self, config: RateConfig) -> dict[str, float]:
        """T."""
        return {"global_steps": config.problem.steps}

    def identity(self, config: RateConfig) -> dict[str, str]:
        """Its problem."""
        return {"application": self.name}

    def dim(self, config: RateConfig) -> int:
        """Length of v."""
        return DIM

    def initial(self, config: RateConfig) -> Vector:
        """Where the simulated runs begin, too."""
        return np.zeros(DIM, np.float32)

    def problems(self, config: RateConfig, node: int, t: int) -> Callable[[int], RealRow]:
        """Rows of the same data; each process draws its own."""
        f = RobustRegression()
        return lambda index: RealRow(f, (config.seed, node, index))

    def tracker(self, config: RateConfig, counters: Mapping[str, Any]) -> Norms:
        """Norms."""
        return Norms(RobustRegression(), config.problem.steps)

    def describe(self, config: RateConfig) -> dict[str, Any]:
        """Nothing more."""
        return {}


APPLICATION = Rate()


def main(run_dir: str, name: str, *settings: str) -> int:
    """Run it; gives back the exit code."""
    return launch_new(APPLICATION, NAME, run_dir, name, settings)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
