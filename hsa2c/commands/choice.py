"""``--app``, for every command of ``hsa2c`` that serves any application: a command's options depend on it.

So it is read before the command's own parser is made. Where it is not typed, a run that is named says which it is of.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hsa2c import application
from hsa2c.commands import APPLICATION
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.errors import EXIT_DONE, ConfigError
from hsa2c.run.directory import application_of
from hsa2c.words import CommandWords, Option

_OPTION = Option(
    flag="--app",
    group="what",
    metavar="MODULE",
    help=f"module of the application (that of the run, where one is named; else {APPLICATION})",
)


def choose(prog: str, arguments: Sequence[str], *, quiet: bool = False) -> tuple[str, list[str]]:
    """Module of the application that a command is to serve, and what else was typed.

    Args:
        prog: The command's name.
        arguments: What was typed after it.
        quiet: See `guarded`.

    Raises:
        SystemExit: There is no such application, or a run is of another; one line has said so.
    """
    first = OneLineParser(prog, "", add_help=False)
    show(first)
    typed, rest = first.parse_known_args(arguments)
    found: list[str] = []

    def act() -> int:
        found.append(_chosen(typed.app, rest))
        application.load(found[0])  # which says what it lacks
        return EXIT_DONE

    if code := guarded(prog, act, quiet=quiet):
        raise SystemExit(code)
    return found[0], rest


def show(parser: argparse.ArgumentParser) -> None:
    """Say in ``--help`` that there is ``--app``; the parser itself never meets it."""
    parser.add_argument(_OPTION.flag, metavar=_OPTION.metavar, help=_OPTION.help)


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """What was typed of a command of any application.

    Args:
        parser: The command's.
        arguments: As for its ``main``.
        prog: As for its ``main``; None: an application's own program, which has no ``--app``.
    """
    if prog is not None:
        show(parser)
    return parser.parse_args(arguments)


def as_typed(words: CommandWords, prog: str | None, app: str) -> CommandWords:
    """An application's words for the command that was typed.

    Args:
        words: The application's.
        prog: ``hsa2c train``, where that was typed; None: the application's own program.
        app: Module of the application.
    """
    if prog is None:
        return words
    return dataclasses.replace(
        words,
        program=prog,
        python=("-P", "-m", *prog.split(), "--app", app),
        options=(_OPTION, *words.options),
        next="hsa2c evaluate" if words.evaluate else None,
    )


def check(path: Path, app: str) -> None:
    """Refuse a run of another application.

    Args:
        path: As for `application_of`.
        app: Module of the application that is to serve it.

    Raises:
        ConfigError: It is of another.
    """
    its = application_of(path)
    if its is None or its in (app, *application.load(app).earlier_modules):
        return
    with contextlib.suppress(ConfigError):  # there is no such module any more
        if app in application.load(its).earlier_modules:
            return
    raise ConfigError(f"{path}: is a run of {its}, not of {app}")


def lead(arguments: Sequence[str], app: str = APPLICATION) -> str:
    """Module of the application that a program which serves several is to serve: by an option, or by a run.

    Args:
        arguments: What was typed.
        app: The one that it serves without either.
    """
    others = application.load(app).command.others
    for word in arguments:
        flag, _, value = word.partition("=")
        if flag in others:
            return others[flag]
        its = application_of(Path(value or word)) if others else None
        if its in others.values():
            return str(its)
    return app


def _chosen(typed: str | None, arguments: Sequence[str]) -> str:
    texts = [text for word in arguments for text in (word, word.partition("=")[2]) if text]
    paths = [Path(text) for text in texts]
    if typed is not None:
        app = application.locate(typed)
        for path in paths:
            check(path, app)
        return app
    runs = {its: path for path in reversed(paths) if (its := application_of(path))}
    if len(runs) > 1:
        said = ", ".join(f"{path} of {its}" for its, path in reversed(runs.items()))
        raise ConfigError(f"runs must be of one application: {said}")
    return application.locate(next(iter(runs), None) or lead(arguments))
