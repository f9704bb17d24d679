"""``python -m hsa2c COMMAND``, or ``hsa2c COMMAND`` once installed."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hsa2c.runtime import interpreter

interpreter.settle()  # before more is looked for: python -m has put the current directory first

from hsa2c.commands import doctor, evaluate, plan, plot, rates, replay, report, train  # noqa: E402
from hsa2c.commands.options import guarded  # noqa: E402
from hsa2c.errors import EXIT_DONE, ConfigError  # noqa: E402

_COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (train.main, "train an agent (as train.py)"),
    "evaluate": (evaluate.main, "let a trained agent play (as evaluate.py)"),
    "doctor": (doctor.main, "find what would stop or spoil a run, before it is started"),
    "plan": (plan.main, "how fast a cluster would be: nodes, B, masters over a simulated clock"),
    "plot": (plot.main, "draw learning curves of runs into one picture"),
    "rates": (rates.main, "learning rates by Corollary 1, and whether its conditions hold"),
    "replay": (replay.main, "repeat a recorded run serially, and compare v (as train.py --replay)"),
    "report": (report.main, "write a run's page: curves, staleness, faults and story"),
}


def main() -> int:
    """Run one command; gives back its exit code."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]][0](arguments[1:])
    return guarded("hsa2c", lambda: _usage(arguments))


def _usage(arguments: list[str]) -> int:
    usage = "\n".join(f"  hsa2c {name:10} {about}" for name, (_, about) in _COMMANDS.items())
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"HSA2C: train Atari agents on every core you have\n\n{usage}\n\nEach has --help.")
        return EXIT_DONE
    given = f"{arguments[0]}: no such command" if arguments else "no command"
    raise ConfigError(f"{given}; known are {', '.join(_COMMANDS)}")


if __name__ == "__main__":
    sys.exit(main())
