"""``hsa2c evaluate``: the application's own command that evaluates what was trained."""

from __future__ import annotations

import importlib

from hsa2c import application
from hsa2c.commands import APPLICATION
from hsa2c.commands.options import guarded
from hsa2c.errors import ConfigError

PROG = "hsa2c evaluate"


def main(arguments: list[str] | None = None, *, app: str = APPLICATION) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
    """
    module = application.load(app).command.evaluate
    if module is None:
        return guarded(PROG, lambda: _refuse(app))
    return int(importlib.import_module(module).main(arguments))


def _refuse(app: str) -> int:
    raise ConfigError(f"{app}: has no command that evaluates what was trained")
