"""``hsa2c evaluate``: the application's own command that evaluates what was trained."""

from __future__ import annotations

import importlib

from hsa2c import application
from hsa2c.commands import APPLICATION
from hsa2c.commands.choice import show
from hsa2c.commands.options import guarded
from hsa2c.errors import EXIT_DONE, ConfigError

PROG = "hsa2c evaluate"


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    name = application.load(app).command.evaluate
    if name is None:
        return guarded(PROG, lambda: _refuse(app))
    module = importlib.import_module(name)
    if prog is None:
        return int(module.main(arguments))
    if arguments and {"-h", "--help"} & set(arguments):
        p = module.parser(prog)
        show(p)
        p.print_help()
        return EXIT_DONE
    return int(module.main(arguments, prog=prog))


def _refuse(app: str) -> int:
    raise ConfigError(f"{app}: has no command that evaluates what was trained")
