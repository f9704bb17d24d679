"""``python -m examples.lda``: train topics, show them, evaluate them, compare runs."""

from __future__ import annotations

import sys

from hsa2c.commands.entry import enter

_COMMANDS = ("show", "evaluate", "speedup")


def main(arguments: list[str] | None = None) -> int:
    """Run the command named first, or train; gives back the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _COMMANDS:
        return enter(f"examples.lda {arguments[0]}", f"examples.lda.commands.{arguments[0]}", arguments[1:])
    return enter("examples.lda", "examples.lda.commands.train", arguments)


if __name__ == "__main__":
    sys.exit(main())
