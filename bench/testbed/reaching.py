"""Seconds to a score against nodes, drawn: the panel of the paper's Fig. 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hsa2c.observe.plot import COLOURS


def draw_seconds(axes: Any, lines: Sequence[Mapping[str, Any]], longest: float) -> None:
    """A line for each B; a cross at the top where no run got there.

    Args:
        axes: Of matplotlib, to draw on.
        lines: For each number of nodes and B: `nodes`, `B`, and `seconds` or None.
        longest: Seconds that a run may take.
    """
    for colour, B in zip(COLOURS, sorted({line["B"] for line in lines}), strict=False):
        own = [line for line in lines if line["B"] == B]
        there = [line for line in own if line["seconds"] is not None]
        x, y = [line["nodes"] for line in there], [line["seconds"] for line in there]
        axes.plot(x, y, color=colour, marker="o", label=f"B = {B}")
        late = [line["nodes"] for line in own if line["seconds"] is None]
        axes.plot(late, [longest] * len(late), "x", color=colour, markersize=9)
    axes.axhline(longest, color="#777777", linestyle=":", linewidth=1)
    axes.set(xlabel="nodes (cross: not reached)", xticks=sorted({line["nodes"] for line in lines}))
    axes.set_ylabel("seconds of training")
    axes.set_ylim(0, 1.08 * longest)
    axes.legend(fontsize=8)
