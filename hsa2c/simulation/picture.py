"""The picture of a plan: speed, deltas and the masters' load against nodes, a column for each number of masters."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsa2c.errors import ConfigError
from hsa2c.observe.plot import COLOURS, STYLE, save
from hsa2c.simulation.planning import FULL, Cluster, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = "os^Dvp*X"
_ROWS: tuple[tuple[str, Callable[[Outcome], float]], ...] = (
    ("{unit} per second", lambda o: o.samples_per_s),
    ("updates behind a delta,\nfor each process", lambda o: o.updates_in_delta),
    ("seconds from a pull to v", lambda o: o.exchange_s),
    ("busy share of the masters\n(processor, or link if more)", lambda o: max(o.master_cpu, o.master_link)),
)


def check_output(output: Path) -> None:
    """Say that a picture cannot be written before hours are simulated for it.

    Raises:
        ConfigError: An unknown format, or no folder to write to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kind = output.suffix.removeprefix(".").lower() or "png"
    known = FigureCanvasAgg(Figure()).get_supported_filetypes()
    if kind not in known:
        raise ConfigError(f"{output}: cannot write .{kind}; known are {', '.join(sorted(known))}")
    folder = next(each for each in (output.absolute().parent, *output.absolute().parents) if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK) or output.is_dir():
        raise ConfigError(f"{output}: cannot be written")


def draw(clusters: Sequence[Cluster], outcomes: Sequence[Outcome], output: Path, unit: str = "data points") -> None:
    """Draw what was found; `unit` is what an update has samples of."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        save(_figure(clusters, outcomes, unit), output)


def _figure(clusters: Sequence[Cluster], outcomes: Sequence[Outcome], unit: str) -> Figure:
    from matplotlib.figure import Figure

    masters = sorted({cluster.masters for cluster in clusters})
    figure = Figure(figsize=(max(8.0, 2.0 + 3.4 * len(masters)), 2.2 + 2.2 * len(_ROWS)), dpi=120, layout="constrained")
    grid = figure.subplots(len(_ROWS), len(masters), sharex=True, sharey="row", squeeze=False)
    for column, K in enumerate(masters):
        seen = [(c, o) for c, o in zip(clusters, outcomes, strict=True) if c.masters == K]
        for row, (name, value) in enumerate(_ROWS):
            _panel(grid[row, column], seen, value)
            values = [value(o) for o in outcomes]
            if _within_a_decade(values):  # where a logarithmic scale has no tick
                grid[row, column].set_yscale("linear")
                grid[row, column].set_ylim(0, 1.1 * max(values))
            if column == 0:
                grid[row, 0].set_ylabel(name.format(unit=unit), fontsize=9)
        grid[0, column].set_title(f"{K} master{'s' if K > 1 else ''}", loc="left")
        nodes = sorted({c.nodes for c, _ in seen})
        grid[-1, column].set_xlabel("nodes")
        grid[-1, column].set_xticks(nodes, [f"{each:,}" for each in nodes])
        _full_speed(grid[0, column], seen)
        grid[-1, column].set_yscale("linear")
        grid[-1, column].set_ylim(0, 1.05)
        grid[-1, column].axhspan(FULL, 1.05, color="#D55E00", alpha=0.12, linewidth=0)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    c = clusters[0]
    figure.suptitle(
        f"{c.cores} processes a node, {1000 * c.update_s:g} ms an update, links of"
        f" {8 * c.link.bytes_per_s / 1e9:g} Gbit/s and {1000 * c.link.latency_s:g} ms, exchange: {c.exchange}",
        fontsize=10,
    )
    return figure


def _panel(axes: Axes, seen: Sequence[tuple[Cluster, Outcome]], value: Callable[[Outcome], float]) -> None:
    """A line for each B; a cross where training ends."""
    for i, B in enumerate(dict.fromkeys(c.B for c, _ in seen)):
        line = sorted(((c.nodes, value(o), o.ended is not None) for c, o in seen if c.B == B), key=lambda each: each[0])
        nodes, values = [each[0] for each in line], [each[1] for each in line]
        # Lines that lie on each other stay to be seen: those drawn first are wider.
        look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
        size = max(3.0, 9.0 - 2.0 * i)
        axes.plot(nodes, values, label=f"B = {B}", linewidth=max(1.0, 3.5 - 0.8 * i), markersize=size, **look)
        ended = [(x, y) for x, y, over in line if over]
        if ended:
            xs, ys = [x for x, _ in ended], [y for _, y in ended]
            axes.scatter(xs, ys, marker="x", s=90, color="black", zorder=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.minorticks_off()


def _within_a_decade(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) < 10 * min(values)


def _full_speed(axes: Axes, seen: Sequence[tuple[Cluster, Outcome]]) -> None:
    """What the same nodes would do without any exchange."""
    full = sorted({(c.nodes, o.samples_per_s / o.speed_share) for c, o in seen if o.speed_share > 0})
    nodes, speeds = [each[0] for each in full], [each[1] for each in full]
    look: dict[str, Any] = {"color": "#777777", "linestyle": "--", "linewidth": 1}
    if len(nodes) == 1:  # a line of one point is not to be seen
        look |= {"marker": "_", "markersize": 24}
    axes.plot(nodes, speeds, label="without exchanges", zorder=0, **look)
