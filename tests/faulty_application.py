"""An application of the core that fails where it is told to, in real processes: ``FOLDER FAULT [SETTING=VALUE ...]``.

The fault is the run's name: ``problem`` when an actor-learner builds its problem, ``gradient-N`` in the third gradient
of each actor-learner of node N, ``nan-N`` when some of its gradients are not finite, ``nans-N`` when all are, ``short``
when the third one of each is shorter than v, ``start`` when v_0 is longer, anything else never. u counts updates: a
gradient is -1 everywhere, and the rate is 1. A run that is there already goes on.
"""

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
from pydantic.dataclasses import dataclass

from hsa2c.application import Application
from hsa2c.config.loading import build, merge, nested, parse_assignment
from hsa2c.config.sections import STRICT, ClusterConfig, DPSGDConfig, OptimiserConfig, OutputConfig, StopConfig
from hsa2c.observe.shown import Field
from hsa2c.run import checkpoint as checkpoints
from hsa2c.tracker import Tracker

DIM = 4
GRADIENT_S = 0.005


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    seed: int = 1
    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    dpsgd: DPSGDConfig = dataclasses.field(default_factory=DPSGDConfig)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)


class Problem:
    def __init__(self, fault, node):
        self._fault, _, at = fault.partition("-")
        self._here = at in ("", str(node))
        self._gradients = self._new = 0
        if fault == "problem":
            raise LookupError("no data for the problem")

    def gradient(self, u_hat, interrupted):
        import torch  # not before: a launcher does without

        self._gradients += 1
        self._new += 1
        time.sleep(GRADIENT_S)
        if self._here and self._fault == "gradient" and self._gradients == 3:
            raise ArithmeticError("the gradient is lost")
        if self._here and self._fault == "short" and self._gradients == 3:
            return -torch.ones(DIM - 1)
        if self._here and (self._fault == "nans" or (self._fault == "nan" and self._gradients % 50 == 7)):
            return torch.tensor([-1.0, float("nan"), -1.0, float("-inf")])
        return -torch.ones(DIM)

    def report(self):
        new, self._new = self._new, 0
        return {"gradients": new}

    def close(self):
        pass


class GradientTracker(Tracker):
    def __init__(self, counters):
        self.work = counters.get("gradients", 0)

    quality = None

    def add(self, node, report):
        self.work += report["gradients"]

    def applied(self, node, updates):
        pass

    def measure(self, v, *, due):
        return False

    def row(self, seconds):
        return {}

    def counters(self):
        return {"gradients": self.work}

    def reached(self):
        return None

    def progress(self):
        return 0.0


class Faulty(Application):
    name = "faulty"
    fields = (Field("work", "exchanges"),)
    curve = Field("work", "exchanges")
    overlaps = True

    def build_config(self, values):
        return build(Config, values)

    def label(self, config):
        return "faulty"

    def limits(self, config):
        return {}

    def identity(self, config):
        return {"application": "faulty"}

    def dim(self, config):
        return DIM

    def initial(self, config):
        return np.zeros(DIM + (config.output.name == "start"), np.float32)

    def problems(self, config, node, t):
        return lambda index: Problem(config.output.name, node)

    def tracker(self, config, counters):
        return GradientTracker(counters)

    def describe(self, config):
        return {}


APPLICATION = Faulty()


def main(folder, fault, *settings, app="faulty_application"):
    from hsa2c.cluster.world import ALONE
    from hsa2c.run.launcher import Launch, launch
    from hsa2c.run.resolve import resolve

    values = {
        "cluster": {"nodes": 1, "processes": 1},
        "dpsgd": {"local_updates": 2, "exchange": "overlap"},
        "optimiser": {"name": "sgd", "learning_rate": 1.0, "half_after": None},
        "output": {"run_dir": folder, "name": fault, "log_every_s": 0.3, "checkpoint_every_s": 1.0},
    }
    for setting in settings:
        values = merge(values, nested(*parse_assignment(setting)))
    directory = Path(folder) / fault
    config = resolve(APPLICATION, values, ALONE)
    what = Launch(app=app, asked=values, config=config, directory=directory, title="faulty")
    if directory.exists():
        _, newest, _ = checkpoints.load_newest(directory / "checkpoints")
        what = dataclasses.replace(what, resume_from=newest, session=2)
    directory.mkdir(parents=True, exist_ok=True)
    return launch(what)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
