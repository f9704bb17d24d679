"""``python -m hsa2c report RUN``: a run on one page."""

from __future__ import annotations

from pathlib import Path

from hsa2c import application
from hsa2c.commands import APPLICATION
from hsa2c.commands.choice import parsed
from hsa2c.commands.files import replacing
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.observe.report import write

PROG = "hsa2c report"


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, "Write a run's page: one HTML file with its curves, staleness, faults and story.")
    p.add_argument("run", type=Path, metavar="RUN", help="run directory")
    p.add_argument("--output", "-o", type=Path, metavar="FILE", help="(report.html in the run directory)")
    return p


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    words = application.load(app).pictures
    options = parsed(parser(), arguments, prog)
    output = options.output or options.run / "report.html"

    def act() -> int:
        with replacing(PROG, output):
            write(options.run, output, words)
        print(output)
        return 0

    return guarded(PROG, act)
