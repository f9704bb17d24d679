"""What is typed of a cluster that is to be simulated: links, shares, times."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hsa2c.errors import ConfigError

if TYPE_CHECKING:
    from hsa2c.simulation.links import Link

_BITS_PER_S = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def within(name: str, value: float, least: float, most: float) -> None:
    """Refuse an option's value that is out of range.

    Raises:
        ConfigError: It is.
    """
    if not least <= value <= most:
        upper = "" if most == math.inf else f", at most {most:g}"
        raise ConfigError(f"{name} {value:g}: must be at least {least:g}{upper}")


def numbers(name: str, text: str, count: int) -> list[float]:
    """Such as 2,1.2.

    Raises:
        ConfigError: They are not as many, or no numbers.
    """
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        raise ConfigError(f"{name} {text}: must be {count} numbers with a comma between")
    return found


def read_link(name: str, text: str) -> Link:
    """A speed and a latency, such as 10Gbit,0.1ms.

    Raises:
        ConfigError: It is none.
    """
    from hsa2c.simulation.links import Link

    speed, _, latency = text.replace(" ", "").lower().partition(",")
    bits_per_s, latency_s = _measure(speed, _BITS_PER_S), _measure(latency, _SECONDS)
    if bits_per_s is None or latency_s is None or bits_per_s == 0:
        asked = "such as 40Gbit" if name == "--master-link" else "such as 10Gbit,0.1ms or 100Mbit,2ms"
        raise ConfigError(f"{name} {text.removesuffix(',0ms') if name == '--master-link' else text}: must be {asked}")
    return Link(bytes_per_s=bits_per_s / 8, latency_s=latency_s)


def _measure(text: str, units: dict[str, float]) -> float | None:
    for unit in sorted(units, key=len, reverse=True):
        if text.endswith(unit):
            try:
                value = float(text.removesuffix(unit))
            except ValueError:
                return None
            return value * units[unit] if 0 <= value < math.inf else None
    return None


def update_times(path: Path) -> tuple[float, ...]:
    """Measured times of updates, in seconds, from a file that has them in ms, one a line.

    Raises:
        ConfigError: It cannot be read, or has something else.
    """
    try:
        times_ms = [float(line) for line in path.read_text(encoding="utf-8").split()]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: must hold numbers, one a line: {error}") from None
    if not times_ms or not all(0 < time_ms < math.inf for time_ms in times_ms):
        raise ConfigError(f"{path}: must hold numbers greater than 0, one a line")
    return tuple(time_ms / 1000 for time_ms in times_ms)
