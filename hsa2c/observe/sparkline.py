"""A curve in one line of text."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*%#"


def sparkline(points: Sequence[tuple[float, float]], width: int, blocks: str = BLOCKS) -> str:
    """A curve in one line of text.

    Args:
        points: Pairs of finite x and y, x not falling.
        width: Most characters to use.
        blocks: Characters from lowest to highest.

    Returns:
        The mean of y in each of `width` equal parts of the range of x; a part without points is left out while there
        are fewer points than parts, so that a young curve is short, not full of holes.
    """
    across = _shares([x for x, _ in points])
    up = _shares([y for _, y in points])
    parts: dict[int, list[float]] = {}
    for x, y in zip(across, up, strict=True):
        parts.setdefault(min(int(x * width), width - 1), []).append(y)
    means = _shares([sum(ys) / len(ys) for _, ys in sorted(parts.items())])
    return "".join(blocks[round(mean * (len(blocks) - 1))] for mean in means)


def _shares(values: Sequence[float]) -> list[float]:
    """Where in the range of all values each lies, 0 to 1; 0 where there is no range."""
    low, half_range = min(values) / 2, max(values) / 2 - min(values) / 2  # halves: the range may be beyond a float
    return [(value / 2 - low) / half_range if half_range > 0 else 0.0 for value in values]
