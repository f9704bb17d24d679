"""``python -m examples.lda``: train topics, show them, evaluate them, compare runs."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # python -m has put the current directory first: a signal.py there is not Python's
    sys.path.append(sys.path.pop(0))

from hsa2c.commands.entry import enter

_COMMANDS = ("show", "evaluate", "speedup")
_OF_ANY_APPLICATION = ("doctor", "plot", "report")
_APPLICATION = "hsa2c.examples.lda.application"


def main(arguments: list[str] | None = None) -> int:
    """Run the command named first, or train; gives back the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _COMMANDS:
        return enter(f"examples.lda {arguments[0]}", f"hsa2c.examples.lda.commands.{arguments[0]}", arguments[1:])
    if arguments and arguments[0] in _OF_ANY_APPLICATION:
        name = arguments[0]
        return enter(f"examples.lda {name}", f"hsa2c.commands.{name}", arguments[1:], app=_APPLICATION)
    return enter("examples.lda", "hsa2c.commands.train", arguments, app=_APPLICATION)


if __name__ == "__main__":
    sys.exit(main())
