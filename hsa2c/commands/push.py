"""``python -m hsa2c push RUN FOLDER``: what was trained, as a folder in the Hugging Face hub's format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hsa2c import application
from hsa2c.application import Application
from hsa2c.commands import APPLICATION
from hsa2c.commands.choice import parsed
from hsa2c.commands.options import OneLineParser, add_trust, guarded
from hsa2c.run import hub

PROG = "hsa2c push"

_DESCRIPTION = """Measure what was trained, and write its folder in the Hugging Face hub's format.

The folder has a model card, the checkpoint, settings, results, curves and a film. Without --to-hub nothing is sent."""


def parser(app: Application) -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, _DESCRIPTION)
    p.add_argument("target", type=Path, metavar="RUN_OR_CHECKPOINT", help="run directory or .safetensors file")
    p.add_argument("folder", type=Path, metavar="FOLDER", help="a new one, or one that push has written")
    p.add_argument("--newest", action="store_true", help="the newest checkpoint, though there is a best one")
    if app.command.count:
        p.add_argument(*app.command.count, type=int, default=30, metavar="N", help="how many are measured (30)")
        p.add_argument("--greedy", action="store_true", help="take the likeliest action instead of sampling")
        p.add_argument("--seed", type=int, default=1000, help="the first one begins with this seed (1000)")
    p.add_argument("--to-hub", metavar="USER/NAME", help="send the folder there (pip install 'hsa2c[hub]')")
    p.add_argument("--private", action="store_true", help="with --to-hub: a new repository is private")
    add_trust(p)
    return p


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    found = application.load(app)
    options = parsed(parser(found), arguments, prog)
    return guarded(PROG, lambda: _push(found, options))


def _push(app: Application, options: argparse.Namespace) -> int:
    if options.to_hub is not None:
        hub.check_upload(options.to_hub)
    given = (*(flag.removeprefix("--") for flag in app.command.count[:1]), "greedy", "seed")
    how = {name: getattr(options, name) for name in given if hasattr(options, name)}
    remarks = hub.write(
        app, options.target, options.folder, options=how, newest=options.newest, trusted=options.trust_code
    )
    for line in remarks:
        print(f"{PROG}: {line}", file=sys.stderr)
    print(options.folder)
    if options.to_hub is not None:
        print(hub.upload(options.folder, options.to_hub, private=options.private))
    return 0
