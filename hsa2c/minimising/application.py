"""Any torch module and a stochastic loss as an application of DPSGD."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hsa2c import names
from hsa2c.application import Application
from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ConfigError
from hsa2c.minimising.settings import MinimiseConfig
from hsa2c.observe.shown import Field
from hsa2c.tracker import Tracker
from hsa2c.words import PictureWords

if TYPE_CHECKING:
    from torch import nn

LOSS = "train/loss"
"""Key of the mean loss in a row."""

INITIAL = "initial.safetensors"
"""In a run's directory: v_0, where other processes than copies of the one that has the model begin with it."""


class Minimise(Application):
    """See `hsa2c.application.Application`."""

    name = "minimise"
    config_type = MinimiseConfig
    fields = (Field("updates", "updates"), Field("updates/s", "speed/updates_per_s"), Field("loss", LOSS, "{:.4g}"))
    curve = Field("loss", LOSS, "{:.4g}")
    fixed: ClassVar[Sequence[str]] = ("problem.model",)
    pictures = PictureWords(unit="updates", tags=(LOSS,), labels={LOSS: "loss"})

    def shown(self, config: MinimiseConfig) -> Sequence[Field]:
        """Also what makes a checkpoint the best one."""
        best = config.problem.best
        more = () if best is None else (Field(best.removeprefix("-"), best.removeprefix("-"), "{:.4g}"),)
        return (*self.fields, *more, *Application.fields[2:])

    def drawn(self, config: MinimiseConfig) -> Sequence[str]:
        """What is best, and the loss."""
        best = config.problem.best
        return (LOSS,) if best is None else (best.removeprefix("-"), LOSS)

    def code(self, config: MinimiseConfig) -> Sequence[str]:
        """Model and functions."""
        problem = config.problem
        return tuple(filter(None, (problem.model, problem.loss, problem.evaluate)))

    def label(self, config: MinimiseConfig) -> str:
        """The script or module of the loss."""
        where, _, name = config.problem.loss.rpartition(":")
        word = Path(where).stem if where.endswith(".py") else (where if names.reaches_others(where + ":") else name)
        last = word.rpartition(".")[2]
        return last if last.isascii() and last.isidentifier() else self.name

    def check(self, config: MinimiseConfig) -> None:
        """Find the code."""
        self.dim(config)
        names.find(config.problem.loss)

    def initial(self, config: MinimiseConfig) -> Vector:
        """The module's own values."""
        from safetensors.numpy import load_file

        from hsa2c.minimising.flat import to_vector

        file = Path(config.output.run_dir) / (config.output.name or "") / INITIAL
        if names.reaches_others(config.problem.model) and file.is_file():
            return cast("Vector", load_file(file)["v"])
        return to_vector(model_of(config))

    def dim(self, config: MinimiseConfig) -> int:
        """Numbers of the module."""
        from hsa2c.minimising.flat import length

        return length(model_of(config))

    def problem(self, config: MinimiseConfig, seed: int) -> Problem:
        """See `hsa2c.application.Application.problem`."""
        from hsa2c.minimising.problem import LossProblem

        return LossProblem(model_of(config), names.find(config.problem.loss), seed)

    def evaluate(self, config: MinimiseConfig, v: Vector) -> dict[str, float]:
        """What the user's function says of the module."""
        from hsa2c.minimising.problem import values_of

        if config.problem.evaluate is None:
            return {}
        import torch

        function: Callable[[Any], Any] = names.find(config.problem.evaluate)
        with torch.no_grad():
            return values_of(function(self.policy(config, v)), function)

    def policy(self, config: MinimiseConfig, v: Vector) -> nn.Module:
        """The module with these values, for use."""
        from hsa2c.minimising.flat import load

        return load(copy.deepcopy(model_of(config)), v).eval()

    def tracker(self, config: MinimiseConfig, counters: Mapping[str, Any]) -> Tracker:
        """Losses, and evaluations where there are some."""
        problem = config.problem
        return Tracker(
            limit=config.stop.updates,
            evaluate=None if problem.evaluate is None else lambda v: self.evaluate(config, v),
            best=problem.best,
            every_s=problem.evaluate_every_s,
            counters=counters,
        )


def model_of(config: MinimiseConfig) -> nn.Module:
    """The module of a run, in this process.

    Raises:
        ConfigError: Its name stands for something else.
    """
    from torch import nn

    found = names.find(config.problem.model)
    model = found if isinstance(found, nn.Module) else found()
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: {config.problem.model} gave a {type(model).__name__}, must be a torch.nn.Module")
    return model


APPLICATION = Minimise()
