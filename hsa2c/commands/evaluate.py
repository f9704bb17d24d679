"""``hsa2c evaluate``: the application's own command that evaluates what was trained, or what it says of v."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from hsa2c import application
from hsa2c.application import Application
from hsa2c.commands import APPLICATION
from hsa2c.commands.choice import show
from hsa2c.commands.options import OneLineParser, add_trust, guarded, tell_skipped
from hsa2c.errors import EXIT_DONE, ConfigError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.hub import settings

PROG = "hsa2c evaluate"


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    loaded = application.load(app)
    if (name := loaded.command.evaluate) is None:
        p = parser(prog or PROG)
        show(p)
        options = p.parse_args(arguments)
        return guarded(options.prog, lambda: _evaluate(app, loaded, options))
    module = importlib.import_module(name)
    if prog is None:
        return int(module.main(arguments))
    if arguments and {"-h", "--help"} & set(arguments):
        p = module.parser(prog)
        show(p)
        p.print_help()
        return EXIT_DONE
    return int(module.main(arguments, prog=prog))


def parser(prog: str) -> OneLineParser:
    """The command line of an application that has none of its own."""
    p = OneLineParser(
        prog, "Say how good what was trained is: a run's best checkpoint if there is one, else its newest."
    )
    p.set_defaults(prog=prog)
    p.add_argument("target", metavar="RUN_OR_CHECKPOINT", type=Path, help="run directory or .safetensors file")
    p.add_argument("--newest", action="store_true", help="the newest checkpoint of the run")
    add_trust(p)
    p.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    return p


def _evaluate(name: str, app: Application, options: argparse.Namespace) -> int:
    if type(app).evaluate is Application.evaluate:
        raise ConfigError(f"{name}: has no evaluate, and so no word on how good v is")
    checkpoint, path, skipped = checkpoints.read(options.target, prefer="newest" if options.newest else "best")
    tell_skipped(options.prog, skipped)
    config = settings(app, checkpoint, path, trusted=options.trust_code)
    result = {**app.evaluate(config, checkpoint.v), "checkpoint": str(path)}
    if options.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key}: {value}")
    return EXIT_DONE
