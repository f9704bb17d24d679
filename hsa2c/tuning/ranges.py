"""Which values a study tries for a setting: as typed, and checked by the application's own configuration.

``optimiser.learning_rate=1e-4..1e-2:log`` is every number between two, ``agent.t_max=16,32,64`` one of a few. What a
setting takes, its configuration alone knows. So it is asked: each end, and each choice, is built once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hsa2c.application import Application
from hsa2c.config.loading import at, merge, nested, parse_assignment
from hsa2c.errors import ConfigError

_FORMS = "must be FIELD=LOW..HIGH, FIELD=LOW..HIGH:log or FIELD=A,B,C"
_LOG = ":log"
_OURS = ("output.run_dir", "output.name")  # by these a study finds its trials

Value = float | int | str | bool | None


@dataclass(frozen=True, kw_only=True)
class Range:
    """The values of one setting: those between two numbers, both included, or some choices."""

    field: str
    """The setting, by dotted name."""
    text: str
    """The values as typed."""
    low: float | int = 0
    """Whole, as `high`, where the setting takes whole numbers alone."""
    high: float | int = 0
    log: bool = False
    """Whether the logarithm is drawn evenly."""
    choices: tuple[Value, ...] = ()
    """In place of `low` and `high`."""

    @property
    def ends(self) -> tuple[Value, Value]:
        """The first value and the last."""
        return (self.choices[0], self.choices[-1]) if self.choices else (self.low, self.high)


def read_all(typed: Sequence[str], app: Application, asked: Mapping[str, Any]) -> dict[str, Range]:
    """Ranges by field.

    Args:
        typed: As the option ``--range`` has them.
        app: The application.
        asked: The other settings, as a tree of plain values.

    Raises:
        ConfigError: One is not a range, is of no setting, holds a value that is not allowed, or is there twice.
    """
    found: dict[str, Range] = {}
    for text in typed:
        field, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not values or not all(field.split(".")):
            raise ConfigError(f"--range {text}: {_FORMS}")
        if field in found:
            raise ConfigError(f"--range {text}: {field} has a range already")
        if field in _OURS:
            raise ConfigError(f"--range {text}: a study chooses {field} itself")
        if at(asked, field) is not None:
            raise ConfigError(
                f"--range {text}: {field} = {at(asked, field)!r} is set already: must be one or the other"
            )
        found[field] = _read(field, values, app, asked)
    return found


def _read(field: str, text: str, app: Application, asked: Mapping[str, Any]) -> Range:
    def build(value: Value) -> None:
        app.build_config(merge(asked, nested(field, value)))

    low, dots, rest = text.partition("..")
    if not dots:
        return _choices(field, text, build)
    high = rest.removesuffix(_LOG)
    log = high != rest
    try:
        ends = [float(low), float(high)]
    except ValueError:
        raise ConfigError(f"--range {field}={text}: {_FORMS}") from None
    if not all(map(math.isfinite, ends)) or ends[0] >= ends[1]:
        raise ConfigError(f"--range {field}={text}: {low} must be less than {high}, and both finite")
    if log and ends[0] <= 0:
        raise ConfigError(f"--range {field}={text}: a logarithm needs numbers greater than 0")
    if all(end.is_integer() for end in ends) and _is_whole(build, ends[0]):
        ends = [int(end) for end in ends]
    for end in ends:
        build(end)
    return Range(field=field, text=text, low=ends[0], high=ends[1], log=log)


def _is_whole(build: Callable[[Value], None], low: float) -> bool:
    """Whether a setting takes whole numbers, and no others."""
    try:
        build(low + 0.5)
    except ConfigError:
        return True
    return False


def _choices(field: str, text: str, build: Callable[[Value], None]) -> Range:
    try:
        _, choices = parse_assignment(f"{field}=[{text}]")
    except ConfigError:
        raise ConfigError(f"--range {field}={text}: {_FORMS}") from None
    if not all(choice is None or isinstance(choice, bool | int | float | str) for choice in choices):
        raise ConfigError(f"--range {field}={text}: choices must be numbers, words, true, false or null")
    if len(choices) < 2 or len({repr(choice) for choice in choices}) < len(choices):
        raise ConfigError(f"--range {field}={text}: must be at least two choices, no two alike; or LOW..HIGH")
    for choice in choices:
        build(choice)
    return Range(field=field, text=text, choices=tuple(choices))
