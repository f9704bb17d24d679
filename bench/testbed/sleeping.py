"""An application whose updates take as long as they are told: an actor-learner's time and messages without its work.

Two cores cannot feed many nodes. To see what a network does to many, `bench.network` replaces the actor-learner by one
that sleeps for the time that a real one was measured to take, and then changes the real parameter by a real gradient's
worth of numbers: deltas, messages, master, processes and launching are the product's.

    python -m bench.testbed.sleeping RUN_DIR NAME [SETTING=VALUE ...]
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from bench.testbed.runs import launch_new
from hsa2c.application import Application
from hsa2c.config.loading import build
from hsa2c.config.sections import STRICT, ClusterConfig, DPSGDConfig, OptimiserConfig, OutputConfig, StopConfig
from hsa2c.dpsgd.protocols import Vector
from hsa2c.observe import shown
from hsa2c.tracker import Tracker

if TYPE_CHECKING:
    import torch

NAME = "bench.testbed.sleeping"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WorkConfig:
    """What is imitated."""

    dim: Annotated[int, Field(ge=1)] = 676_000
    """Length of v: the Atari network's."""

    update_s: Annotated[float, Field(gt=0)] = 0.03
    """Seconds of an update of one actor-learner, its share of playing included. Tu."""

    samples: Annotated[int, Field(ge=1)] = 48
    """Data points (agent steps) of an update."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SleepingConfig:
    """A run of it."""

    seed: int = 1
    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    dpsgd: DPSGDConfig = dataclasses.field(default_factory=DPSGDConfig)
    optimiser: OptimiserConfig = dataclasses.field(
        default_factory=lambda: OptimiserConfig(name="sgd", learning_rate=1e-6, half_after=None)
    )
    work: WorkConfig = dataclasses.field(default_factory=WorkConfig)
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)


class Sleeper:
    """A problem that sleeps."""

    def __init__(self, work: WorkConfig, g: torch.Tensor) -> None:
        self._work = work
        self._g = g
        self._made = self._reported = 0
        self._made_at_s = time.monotonic()

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor:
        """Noise, after a while."""
        time.sleep(self._work.update_s)
        self._made += 1
        self._made_at_s = time.monotonic()
        return self._g

    def report(self) -> Mapping[str, Any]:
        """Updates since the last call; all of them, and the time of the last, by the clock of all hosts here."""
        new, self._reported = self._made - self._reported, self._made
        return {"data_points": new * self._work.samples, "made": self._made, "made_at_s": self._made_at_s}

    def close(self) -> None:
        """Nothing to do."""


class Counter(Tracker):
    """Counts data points, and keeps exact times for `bench.network`: a row comes once a second, work when it is done.

    Args:
        counters: See `hsa2c.application.Application.tracker`.
        B: Updates between two exchanges: only whole rounds of them are marked, so that between two marks there is an
            exchange for each.
    """

    quality = None

    def __init__(self, counters: Mapping[str, Any], B: int = 1) -> None:
        self.work = int(counters.get("data_points", 0))
        self._at_row = self.work
        self._B = B
        self._marks: dict[str, float] = {}
        self._steps = 0

    def add(self, node: int, report: Mapping[str, Any]) -> None:
        """See `hsa2c.tracker.Tracker`, here and below."""
        self.work += report["data_points"]
        if report["made"] % self._B == 0:
            self._marks |= {f"made/{node}": report["made"], f"made_at_s/{node}": report["made_at_s"]}

    def applied(self, node: int, updates: int) -> None:
        """Work is counted otherwise."""

    def measure(self, v: Vector, *, due: bool) -> bool:
        """V says nothing; when it came does."""
        self._steps += 1
        self._marks |= {"stepped": self._steps, "stepped_at_s": time.monotonic()}
        return False

    def row(self, seconds: float) -> dict[str, float | int | None]:
        """Work and its speed."""
        new, self._at_row = self.work - self._at_row, self.work
        return {"data_points": self.work, "speed/data_points_per_s": new / seconds, **self._marks}

    def warning(self) -> str | None:
        """None."""
        return None

    def counters(self) -> dict[str, Any]:
        """Work."""
        return {"data_points": self.work}

    def reached(self) -> str | None:
        """No limit on work."""
        return None

    def progress(self) -> float:
        """No limit on work."""
        return 0.0


class Sleeping(Application):
    """See `hsa2c.application.Application`."""

    name = "sleeping"
    fields = (shown.Field("data points/s", "speed/data_points_per_s"), shown.Field("B", "exchange/B"))
    curve = shown.Field("data points/s", "speed/data_points_per_s")
    fixed: ClassVar[Sequence[str]] = ("work.dim",)

    def build_config(self, values: Mapping[str, Any]) -> SleepingConfig:
        """Plain values into a configuration."""
        return build(SleepingConfig, values)

    def label(self, config: SleepingConfig) -> str:
        """The first part of a run's name."""
        return self.name

    def title(self, config: SleepingConfig) -> str:
        """What runs, in one line."""
        return f"sleeping: {config.cluster.nodes} nodes, an update takes {1000 * config.work.update_s:.1f} ms"

    def limits(self, config: SleepingConfig) -> dict[str, float]:
        """None on work."""
        return {}

    def identity(self, config: SleepingConfig) -> dict[str, str]:
        """Its size."""
        return {"application": self.name, "dim": str(config.work.dim)}

    def dim(self, config: SleepingConfig) -> int:
        """Length of v."""
        return config.work.dim

    def initial(self, config: SleepingConfig) -> Vector:
        """Noise of a network's size."""
        return np.random.default_rng(config.seed).normal(0, 0.05, config.work.dim).astype(np.float32)

    def problems(self, config: SleepingConfig, node: int, t: int) -> Callable[[int], Sleeper]:
        """Sleepers; each has noise of its own."""
        import torch

        def make(index: int) -> Sleeper:
            generator = torch.Generator().manual_seed(1000 * node + index)
            return Sleeper(config.work, torch.randn(config.work.dim, generator=generator))

        return make

    def tracker(self, config: SleepingConfig, counters: Mapping[str, Any]) -> Counter:
        """Data points."""
        B = config.dpsgd.local_updates
        return Counter(counters, B if config.cluster.processes == 1 and isinstance(B, int) else 1)

    def describe(self, config: SleepingConfig) -> dict[str, Any]:
        """Nothing more."""
        return {}


APPLICATION = Sleeping()


def measurement(nodes: int, B: int, exchange: str, update_s: float, seconds: float) -> list[str]:
    """Settings of one that takes so many seconds, for `main`: one actor-learner on each node."""
    return [
        f"cluster.nodes={nodes}",
        "cluster.processes=1",
        f"dpsgd.local_updates={B}",
        f"dpsgd.exchange={exchange}",
        f"work.update_s={update_s}",
        f"stop.minutes={seconds / 60}",
        "output.log_every_s=1",
        "output.checkpoint_every_s=3600",
    ]


def main(run_dir: str, name: str, *settings: str) -> int:
    """Run it; gives back the exit code."""
    return launch_new(APPLICATION, NAME, run_dir, name, settings)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
