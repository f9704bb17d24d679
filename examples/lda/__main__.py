"""``python -m examples.lda``: train topics, show them, evaluate them, compare runs."""

from __future__ import annotations

import sys

from hsa2c.runtime import interpreter

interpreter.settle()  # before more is looked for: python -m has put the current directory first

from examples.lda.commands import evaluate, show, speedup, train  # noqa: E402

_COMMANDS = {"show": show.main, "evaluate": evaluate.main, "speedup": speedup.main}


def main(arguments: list[str] | None = None) -> int:
    """Run the command named first, or train; gives back the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]](arguments[1:])
    return train.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
