"""``python -m hsa2c export RUN FILE``: what was trained, as a file for other programs."""

from __future__ import annotations

from pathlib import Path

from hsa2c import application
from hsa2c.commands import APPLICATION
from hsa2c.commands.choice import parsed
from hsa2c.commands.files import replacing
from hsa2c.commands.options import OneLineParser, add_trust, guarded, tell_skipped
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.hub import settings_of_same

PROG = "hsa2c export"


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, "Write what was trained as a file that other programs run without hsa2c.")
    p.add_argument("target", type=Path, metavar="RUN_OR_CHECKPOINT", help="run directory or .safetensors file")
    p.add_argument("file", type=Path, metavar="FILE", help="policy.onnx, or policy.pt for TorchScript")
    p.add_argument("--newest", action="store_true", help="of the newest checkpoint, though there is a best one")
    add_trust(p)
    return p


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    options = parsed(parser(), arguments, prog)

    def act() -> int:
        found = application.load(app)
        checkpoint, path, skipped = checkpoints.read(options.target, prefer="newest" if options.newest else "best")
        tell_skipped(PROG, skipped)
        config = settings_of_same(found, checkpoint, path, trusted=options.trust_code)
        with replacing(PROG, options.file):
            found.export(config, checkpoint.v, options.file)
        print(options.file)
        return 0

    return guarded(PROG, act)
