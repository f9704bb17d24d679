"""Learning curves of several runs in one picture."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hsa2c.errors import ConfigError
from hsa2c.observe.runlog import ROW_KEYS, metrics_path, read_curve, read_rows, read_settings

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

XAxis = Literal["work", "minutes"]

#: What the axes of tags that every run has are called; others bear the tag itself, if nobody names them.
LABELS: Mapping[str, str] = {
    "speed/exchanges_per_s": "exchanges per second",
    "speed/delta_bytes_per_exchange": "bytes of a delta",
    "speed/v_bytes_per_exchange": "bytes of v for an exchange",
    "exchange/B": "B, mean of the nodes",
    "exchange/B_least": "least B",
    "exchange/B_most": "most B",
    "exchange/update_s": "seconds of an update (Tu)",
    "exchange/seconds": "seconds of an exchange (Tc)",
    "exchange/lost_share": "share of time lost to exchanges",
    "exchange/rate_scale": "factor on eta by B",
    "staleness/mean": "mean delay τ (global steps)",
    "staleness/max": "largest delay τ (global steps)",
    "staleness/overlap_mean": "mean overlap (updates)",
    "staleness/overlap_max": "largest overlap (updates)",
    "delta/norm_mean": "mean norm of a delta",
    "delta/cosine_mean": "mean cosine with the step before",
    "delta/agreement": "agreement of a step's deltas",
    "nodes/slowest": "slowest node",
    "nodes/slowest_share": "its updates, of the others' median",
    "time/waiting_for_master": "share of a node's time, exchanging",
}

# Okabe and Ito's colours: told apart by colour-blind readers, and in this order also in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
DASHES = ("-", "--", ":", "-.")
SMALL_ACROSS = 3  # panels beside each other
LEGEND_INSIDE = 6  # runs; more have the legend beside the panel

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
    "lines.solid_capstyle": "round",
}


# A home that cannot be written to costs matplotlib a temporary folder, and nobody two lines on stderr.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


class _Curve(NamedTuple):
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def plot(
    runs: Sequence[Path],
    output: Path,
    *,
    tags: Sequence[str],
    x: XAxis = "work",
    title: str | None = None,
    step_name: str = "work",
    labels: Mapping[str, str] | None = None,
) -> None:
    """Draw runs over each other and write the picture, whole or not at all.

    Where there are several seeds of several settings, the colour tells the setting and the dashes tell the seed.

    Args:
        runs: Run directories or their ``metrics.jsonl``.
        output: The file to write; its ending tells the format, PNG without one.
        tags: The values to draw: the first large, the others small beneath it where any run has them.
        x: "work" (the rows' step) or "minutes" (wall-clock of training).
        title: Above it all; None: what the large panel shows.
        step_name: What the rows' steps count.
        labels: What the axes of an application's own tags are called.

    Raises:
        ConfigError: No run, a run without rows or without the first tag, a format that cannot be written, or a folder
            that cannot be written to.
    """
    from matplotlib import rc_context

    if not runs or not tags:
        raise ConfigError("plot: needs at least one run and one tag")
    names = names_of([metrics_path(run).parent for run in runs])
    curves = {name: read_run(run, tags, x) for name, run in zip(names, runs, strict=True)}
    looks = dict(zip(names, looks_of([setting_of(run) for run in runs]), strict=True))
    with rc_context(STYLE):
        save(draw_curves(curves, looks, tags, x, title, step_name, {**LABELS, **(labels or {})}), output)


def names_of(directories: Sequence[Path]) -> list[str]:
    """A name for each run: its directory's, with the folder above where two are the same, else its number."""
    names = [directory.resolve().name for directory in directories]
    if len(set(names)) < len(names):
        names = ["/".join(directory.resolve().parts[-2:]) for directory in directories]
    if len(set(names)) < len(names):
        names = [f"{name} ({i})" for i, name in enumerate(names, 1)]
    return [name.replace("$", r"\$") for name in names]  # a dollar would begin a formula


def read_run(run: Path, tags: Sequence[str], x: XAxis) -> dict[str, _Curve]:
    """The curves of a run by tag; tags that it has no values of are left out.

    Raises:
        ConfigError: See `plot`.
    """
    import numpy as np

    if not any(row.keys() > ROW_KEYS for row in read_rows(metrics_path(run))):
        raise ConfigError(f"{run}: no rows yet, nothing to plot")
    curves = {}
    for tag in tags:
        steps, elapsed_s, values = read_curve(run, tag)
        across = elapsed_s / 60 if x == "minutes" else steps
        known = np.isfinite(across)
        if known.any():
            curves[tag] = _Curve(across[known], values[known])
    if tags[0] not in curves:
        raise ConfigError(f"{run}: no value of {tags[0]} yet, nothing to plot")
    return curves


def setting_of(run: Path) -> str:
    """What tells a run's setting from others: not its seed, nor how long it may take, nor where it is kept."""
    directory = metrics_path(run).parent
    config = read_settings(directory / "config.yaml")
    told = {key: value for key, value in config.items() if key not in ("seed", "stop", "evaluation", "output")}
    return json.dumps(told, sort_keys=True, default=str) if told else str(directory)


def looks_of(settings: Sequence[str]) -> list[dict[str, Any]]:
    """Colour and dashes of each run: no two alike until there are more than can be told apart."""
    kinds = list(dict.fromkeys(settings))
    if len(kinds) in (1, len(settings)):
        pairs = [(i, i // len(COLOURS)) for i in range(len(settings))]
    else:
        pairs = [(kinds.index(each), settings[:i].count(each)) for i, each in enumerate(settings)]
    return [{"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[j % len(DASHES)]} for i, j in pairs]


def draw_curves(
    curves: Mapping[str, Mapping[str, _Curve]],
    looks: Mapping[str, dict[str, Any]],
    tags: Sequence[str],
    x: XAxis,
    title: str | None,
    step_name: str,
    labels: Mapping[str, str],
) -> Figure:
    """The first tag's curves above, a small panel for each of the others that a run has below."""
    from matplotlib.figure import Figure

    small = [tag for tag in tags[1:] if any(tag in by_tag for by_tag in curves.values())]
    across = min(len(small), SMALL_ACROSS) or 1
    down = math.ceil(len(small) / across)
    figure = Figure(figsize=(9, 5 + 2.3 * down), dpi=120, layout="constrained")
    grid = figure.add_gridspec(1 + down, across, height_ratios=[5, *[2] * down])
    scale, x_label = _x_scale(curves, x, step_name)

    large = figure.add_subplot(grid[0, :])
    _panel(large, curves, looks, tags[0], scale)
    large.set_ylabel(labels.get(tags[0], tags[0]))
    large.set_xlabel(x_label)
    large.set_title(title or labels.get(tags[0], tags[0]).capitalize(), loc="left", pad=10)
    beside = len(curves) > LEGEND_INSIDE
    large.legend(**({"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if beside else {"loc": "best"}))
    for i, tag in enumerate(small):
        axes = figure.add_subplot(grid[1 + i // across, i % across], sharex=large)
        _panel(axes, curves, looks, tag, scale)
        axes.set_xlabel(x_label, fontsize=9)
        axes.set_ylabel(labels.get(tag, tag), fontsize=9)
        axes.tick_params(labelsize=8)
    large.set_xlim(left=0)
    return figure


def _panel(
    axes: Axes,
    curves: Mapping[str, Mapping[str, _Curve]],
    looks: Mapping[str, dict[str, Any]],
    tag: str,
    scale: float,
) -> None:
    """One value of all runs; a run looks the same in every panel."""
    from matplotlib.ticker import FuncFormatter

    for name, by_tag in curves.items():
        if tag in by_tag:
            curve = by_tag[tag]
            marker = "o" if len(curve.x) == 1 else None  # a line of one point would not be seen
            axes.plot(curve.x / scale, curve.y, label=name, linewidth=1.5, marker=marker, markersize=4, **looks[name])
    axes.margins(x=0.01)
    if tag.startswith("speed/"):
        axes.set_ylim(bottom=0)
    if max(abs(limit) for limit in axes.get_ylim()) >= 10_000:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _x_scale(curves: Mapping[str, Mapping[str, _Curve]], x: XAxis, step_name: str) -> tuple[float, str]:
    """What to divide x by, and the label that says so."""
    if x == "minutes":
        return 1.0, "wall-clock minutes"
    most = max(curve.x.max() for by_tag in curves.values() for curve in by_tag.values())
    for scale, word in ((1e6, "millions"), (1e3, "thousands")):
        if most >= scale:
            return scale, f"{step_name} ({word})"
    return 1.0, step_name


def save(figure: Figure, output: Path) -> None:
    """Write beside the target, then rename: nobody sees half a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kind = output.suffix.removeprefix(".").lower() or "png"
    known = FigureCanvasAgg(figure).get_supported_filetypes()
    if kind not in known:
        raise ConfigError(f"{output}: cannot write .{kind}; known are {', '.join(sorted(known))}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".plot-", dir=output.parent) as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
            picture = Path(folder, "picture")
            figure.savefig(picture, format=kind)
            picture.replace(output)
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror or error}") from None
