"""``python -m hsa2c COMMAND``, or ``hsa2c COMMAND`` once installed."""

from __future__ import annotations

import sys

from hsa2c.commands.entry import enter
from hsa2c.errors import EXIT_DONE, ConfigError

#: Name, also of the module in `hsa2c.commands`, to what it is for.
_COMMANDS = {
    "train": "train an agent (as train.py)",
    "evaluate": "let a trained agent play (as evaluate.py)",
    "doctor": "find what would stop or spoil a run, before it is started",
    "plan": "how fast a cluster would be: nodes, B, masters over a simulated clock",
    "plot": "draw learning curves of runs into one picture",
    "rates": "learning rates by Corollary 1, and whether its conditions hold",
    "replay": "repeat a recorded run serially, and compare v (as train.py --replay)",
    "report": "write a run's page: curves, staleness, faults and story",
}


def main() -> int:
    """Run one command; gives back its exit code."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in _COMMANDS:
        return enter(f"hsa2c {arguments[0]}", f"hsa2c.commands.{arguments[0]}", arguments[1:])
    from hsa2c.commands.options import guarded

    return guarded("hsa2c", lambda: _usage(arguments))


def _usage(arguments: list[str]) -> int:
    usage = "\n".join(f"  hsa2c {name:10} {about}" for name, about in _COMMANDS.items())
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"HSA2C: train Atari agents on every core you have\n\n{usage}\n\nEach has --help.")
        return EXIT_DONE
    given = f"{arguments[0]}: no such command" if arguments else "no command"
    raise ConfigError(f"{given}; known are {', '.join(_COMMANDS)}")


if __name__ == "__main__":
    sys.exit(main())
