"""The configuration of a run of `hsa2c.minimise`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from hsa2c.config.sections import STRICT, ClusterConfig, DPSGDConfig, OptimiserConfig, OutputConfig, UpdateStopConfig

CodeName = Annotated[str, Field(min_length=3)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ProblemConfig:
    """What is minimised: names of code, ``module:name`` or ``/folder/script.py:name`` (`hsa2c.names`)."""

    model: CodeName
    """A torch.nn.Module, or a function without arguments that makes one."""

    loss: CodeName
    """A function of the model: a stochastic loss, a scalar tensor with a graph."""

    evaluate: CodeName | None = None
    """A function of the model: how good it is, a number or numbers by name. None: nobody asks."""

    evaluate_every_s: Annotated[float, Field(gt=0, le=86_400)] = 1.0
    """Least seconds between two evaluations; more where one takes over a twentieth of the master's time."""

    best: Annotated[str, Field(min_length=1)] | None = None
    """Which of these numbers makes a checkpoint the best one: the higher the better; after a minus, the lower."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MinimiseConfig:
    """A run of `hsa2c.minimise`."""

    problem: ProblemConfig

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Seed of torch's, numpy's and Python's random numbers, another one in each process."""

    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    dpsgd: DPSGDConfig = dataclasses.field(default_factory=DPSGDConfig)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    stop: UpdateStopConfig = dataclasses.field(default_factory=UpdateStopConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)
