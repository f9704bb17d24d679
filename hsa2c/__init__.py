"""HSA2C: training by lock-free actor-learners on every node and one asynchronous master over MPI.

    run = hsa2c.train(nodes=2, minutes=10)
    run = hsa2c.minimise(model, loss, evaluate=accuracy, best="accuracy", nodes=2, p=2, updates=20_000)

Nothing heavy is loaded before it is used: ``import hsa2c`` takes milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsa2c.api.callbacks import Callback
    from hsa2c.api.loading import evaluate, load
    from hsa2c.api.minimising import minimise
    from hsa2c.api.training import Run, resume, train
    from hsa2c.application import Application
    from hsa2c.dpsgd.problem import Problem
    from hsa2c.errors import CheckpointError, ConfigError, FinishedError, HSA2CError
    from hsa2c.tracker import Tracker

__all__ = [
    "Application",
    "Callback",
    "CheckpointError",
    "ConfigError",
    "FinishedError",
    "HSA2CError",
    "Problem",
    "Run",
    "Tracker",
    "evaluate",
    "load",
    "minimise",
    "resume",
    "train",
]

_HOMES = {
    "hsa2c.api.callbacks": ("Callback",),
    "hsa2c.api.loading": ("evaluate", "load"),
    "hsa2c.api.minimising": ("minimise",),
    "hsa2c.api.training": ("Run", "resume", "train"),
    "hsa2c.application": ("Application",),
    "hsa2c.dpsgd.problem": ("Problem",),
    "hsa2c.errors": ("CheckpointError", "ConfigError", "FinishedError", "HSA2CError"),
    "hsa2c.tracker": ("Tracker",),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("hsa2c")
    for home, held in _HOMES.items():
        if name in held:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'hsa2c' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
