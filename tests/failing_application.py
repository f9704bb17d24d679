"""An application of the core that fails where it is told to; `test_end_to_end.py` runs it in real processes.

The place is written in the run's name: ``problem`` when an actor-learner builds its problem, ``gradient-N`` in the
third gradient of the actor-learner of node N.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from pydantic.dataclasses import dataclass

from hsa2c.config import STRICT, ClusterConfig, DPSGDConfig, OptimiserConfig, OutputConfig, StopConfig, build
from hsa2c.console import Field
from hsa2c.runtime.application import Application

DIM = 4


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    seed: int = 1
    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    dpsgd: DPSGDConfig = dataclasses.field(default_factory=DPSGDConfig)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)


class Problem:
    def __init__(self, place, node):
        self._fails = place == f"gradient-{node}"
        self._updates = 0
        if place == "problem":
            raise LookupError("no data for the problem")

    def gradient(self, u_hat, interrupted):
        self._updates += 1
        if self._fails and self._updates == 3:
            raise ArithmeticError("the gradient is lost")
        return torch.ones(DIM)

    def report(self):
        return {}

    def close(self):
        pass


class Tracker:
    work = 0
    quality = None

    def add(self, node, report):
        self.work += 1

    def measure(self, v, *, due):
        return False

    def row(self, seconds):
        return {}

    def counters(self):
        return {}

    def reached(self):
        return None

    def progress(self):
        return 0.0


class Failing(Application):
    name = "failing"
    fields = (Field("work", "exchanges"),)
    curve = Field("work", "exchanges")

    def build_config(self, values):
        return build(Config, values)

    def label(self, config):
        return "failing"

    def limits(self, config):
        return {}

    def identity(self, config):
        return {"application": "failing"}

    def dim(self, config):
        return DIM

    def initial(self, config):
        return np.zeros(DIM, np.float32)

    def problems(self, config, node, t):
        return lambda index: Problem(config.output.name, node)

    def tracker(self, config, counters):
        return Tracker()

    def describe(self, config):
        return {}


APPLICATION = Failing()


def main(folder, place, nodes):
    from hsa2c.runtime.launch import Launch, launch

    config = Config(
        cluster=ClusterConfig(nodes=int(nodes), processes=1), output=OutputConfig(run_dir=folder, name=place)
    )
    directory = Path(folder) / place
    directory.mkdir(parents=True)
    return launch(Launch(app="failing_application", config=config, directory=directory, title="failing"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
