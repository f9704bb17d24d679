"""What an application is called where people read: its command line, its pictures, its preflight.

Each value has a default that is right for any application, so that a new one says only what is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Group = Literal["what", "who", "how", "stop", "output"]


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of the command line: short for a field of the configuration."""

    flag: str
    """Such as ``--seed``."""

    group: Group
    """Where ``--help`` shows it."""

    help: str
    """What ``--help`` says, the default in brackets."""

    field: str | None = None
    """The field that it sets, by dotted name; None: the command itself reads it."""

    sets: Mapping[str, Any] | None = None
    """Fields that it sets, where it takes no value; every other option is stronger."""

    after: str | None = None
    """The option that it stands after; None: it begins its group. Only for those of an application."""

    type: Callable[[str], Any] | None = None
    """Reads its text, as argparse's; None: it is text."""

    metavar: str | None = None
    choices: Sequence[str] | None = None
    action: str | None = None

    @property
    def name(self) -> str:
        """Where argparse puts its value."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class CommandWords:
    """The command line that trains, and its neighbours."""

    program: str = "hsa2c train"
    """What its user types."""

    python: Sequence[str] = ("-P", "-m", "hsa2c", "train")
    """The same for Python, where `program` is no file beside the package."""

    title: str = "HSA2C: train on every core you have"
    purpose: str = "train"
    """What it does, in a word or two."""

    description: str = "Train on this machine's cores, or on many machines'."
    """The first paragraph of ``--help``."""

    what: str = "what to train"
    """The title of the first group of options."""

    endless: str = "never: Ctrl-C writes a checkpoint and ends"
    """When a run ends that has no limit."""

    options: Sequence[Option] = ()
    """Its own."""

    helps: Mapping[str, str] = field(default_factory=dict)
    """Other words for options that every application has."""

    without: Collection[str] = ()
    """Options that others have, and it has not."""

    others: Mapping[str, str] = field(default_factory=dict)
    """Options of other applications that share its program: flag to module."""

    limits: str = "--minutes"
    """The options that say how long a run may last, for who forgot them."""

    example: str = "output.keep_checkpoints=5"
    """An assignment, for who typed ``--set`` wrongly."""

    configs: str | None = None
    """Package with its own configuration files, which ``--config`` takes by name."""

    next: str | None = None
    """The command that comes after training; the run's directory is to follow."""

    evaluate: str | None = None
    """Module that evaluates what was trained: `main` of arguments and of the command's name, ``prog``; `parser` of
    ``prog``.
    """

    count: Sequence[str] = ()
    """Options of ``push`` for how often it measures, the first one as `Application.card` calls it."""

    evaluating: str = "evaluate what was trained"
    """What that does, in a word or two."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card says of something trained, measured when the card was made (``hsa2c push``)."""

    subject: str
    """What it was trained for: the hub's data set."""

    metric: str
    """What was measured: the hub's name of it."""

    value: str
    """The number and how it spreads, ``18.90 +/- 1.20``."""

    measured: str
    """How, with seeds, in one line."""

    result: Mapping[str, Any]
    """Each number, for JSON."""

    task: str = "reinforcement-learning"
    """The hub's name of the task."""

    tags: Sequence[str] = ()
    remarks: Sequence[str] = ()
    """What its maker should be told."""


@dataclass(frozen=True, kw_only=True)
class PictureWords:
    """Curves and pages of runs."""

    unit: str = "data points"
    """What `Tracker.work` counts, and so the horizontal axis."""

    subject: str | None = None
    """The field of a configuration, by dotted name, that says in a word what is trained."""

    tags: Sequence[str] = ()
    """Keys of rows that ``plot`` draws, the first one large; empty: `Application.curve`."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """What axes are called: key of a row to words."""

    sections: Sequence[tuple[str, tuple[str, ...], str]] = ()
    """A report's own sections: title, prefixes of keys, what they are about."""


@dataclass(frozen=True, kw_only=True)
class PreflightWords:
    """What ``doctor`` looks at beside what every run needs."""

    needs: str = "application"
    """What `Application.check` loads."""

    cure: str = "install there what it needs"
    """What to do where that fails."""

    smaller: str | None = None
    """An option that takes less memory."""

    packages: Sequence[str] = ()
    """Distributions that must be of one version on all hosts."""

    folders: Sequence[str] = ()
    """Of its source files, in `hsa2c`."""
