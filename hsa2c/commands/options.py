"""What the command lines have in common."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from hsa2c import interpreter, signals, streams
from hsa2c.config.loading import is_text
from hsa2c.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, HSA2CError


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaint is one line, with exit code 2. Making one settles this process's surroundings."""

    def __init__(self, prog: str, description: str, *, add_help: bool = True) -> None:
        settle()
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            add_help=add_help,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.register("type", Path, _path)  # for every option and argument with type=Path

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; text that is not UTF-8 is refused, since it can be neither shown nor kept."""
        words = sys.argv[1:] if args is None else list(args)
        for before, word in pairwise(["", *words]):
            if not is_text(word):
                option, equals, _ = word.partition("=")
                where = option if equals and option.startswith("--") else before
                self.error(f"{where if where.startswith('-') else 'argument'}: must be UTF-8 text: {word!a}")
        return super().parse_args(words, namespace)

    def print_help(self, file: Any = None) -> None:
        """Print it, and end if that cannot be done."""
        show = super().print_help
        if code := guarded(self.prog, lambda: show(file) or EXIT_DONE):
            raise SystemExit(code)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and end."""
        print(f"{self.prog}: {' '.join(message.split())} (--help shows all options)", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


def _path(text: str) -> Path:
    """A path; ``~`` is the user's home also where a shell has not said so, as in ``--video=~/x.mp4``."""
    try:
        return Path(interpreter.at_home(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: must be {error}") from None


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option by which a user agrees to code that a checkpoint from elsewhere names (`hsa2c.run.hub.settings`)."""
    parser.add_argument(
        "--trust-code", action="store_true", help="import the code that it names, though it is not in a run's directory"
    )


def number_or_auto(text: str) -> int | str:
    """A whole number, or the word auto."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, or auto") from None


def settle() -> None:
    """What every command does first about its process: streams, search path, home. More than once does no harm."""
    streams.settle()
    interpreter.settle()


def tell_skipped(prog: str, skipped: Sequence[str]) -> None:
    """Say on stderr which checkpoints were passed over, a line each."""
    for line in skipped:
        print(f"{prog}: passed over: {line}", file=sys.stderr)


def guarded(prog: str, act: Callable[[], int], *, quiet: bool = False) -> int:
    """Run a command; an error of ours, or a signal, becomes one line on stderr and its exit code.

    What it has printed is written out here, where a failure can still be told.

    Args:
        prog: The command's name, for the line.
        act: What to run.
        quiet: No line for an error of ours: another rank of the same world prints it.
    """
    settle()
    try:
        try:
            with signals.raising():
                return act()
        finally:
            sys.stdout.flush()
    except HSA2CError as error:
        if not quiet:
            print(f"{prog}: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stop:
        with contextlib.suppress(OSError):  # SIGHUP: the terminal has gone
            if not quiet:
                print(f"{prog}: interrupted", file=sys.stderr, flush=True)
        return 128 + stop.signum if isinstance(stop, signals.Interrupted) else EXIT_INTERRUPTED
