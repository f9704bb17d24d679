"""``python -m hsa2c COMMAND``, or ``hsa2c COMMAND`` once installed."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # python -m has put the current directory first: a signal.py there is not Python's
    sys.path.append(sys.path.pop(0))

from hsa2c.commands.entry import enter
from hsa2c.errors import EXIT_DONE, ConfigError

#: Name, also of the module in `hsa2c.commands`, to what it is for; an application says it of some in its own words.
_COMMANDS = {
    "train": "{command.purpose} (as {command.program})",
    "evaluate": "{command.evaluating}",
    "export": "write what was trained as a file for other programs: ONNX, TorchScript",
    "push": "measure what was trained, and write its folder for the Hugging Face hub",
    "doctor": "find what would stop or spoil a run, before it is started",
    "plan": "how fast a cluster would be: nodes, B, masters over a simulated clock",
    "plot": "draw learning curves of runs into one picture",
    "rates": "learning rates by Corollary 1, and whether its conditions hold",
    "replay": "repeat a recorded run serially, and compare v (as {command.program} --replay)",
    "report": "write a run's page: curves, staleness, faults and story",
    "tune": "find good values of settings by many short trainings",
}

#: Those that take ``--app``.
_OF_ANY_APPLICATION = ("train", "evaluate", "export", "push", "doctor", "plot", "replay", "report", "tune")


def main() -> int:
    """Run one command; gives back its exit code."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in _COMMANDS:
        name = arguments[0]
        return enter(f"hsa2c {name}", f"hsa2c.commands.{name}", arguments[1:], chooses=name in _OF_ANY_APPLICATION)
    from hsa2c.commands.options import guarded

    return guarded("hsa2c", lambda: _usage(arguments))


def _usage(arguments: list[str]) -> int:
    if arguments and arguments[0] in ("-h", "--help"):
        from hsa2c import application
        from hsa2c.commands import APPLICATION

        command = application.load(APPLICATION).command
        lines = [f"  hsa2c {name:10} {about.format(command=command)}" for name, about in _COMMANDS.items()]
        more = f"Each has --help. {', '.join(_OF_ANY_APPLICATION)} serve any application: --app MODULE."
        print("\n".join([command.title, "", *lines, "", more]))
        return EXIT_DONE
    given = f"{arguments[0]}: no such command" if arguments else "no command"
    raise ConfigError(f"{given}; known are {', '.join(_COMMANDS)}")


if __name__ == "__main__":
    sys.exit(main())
