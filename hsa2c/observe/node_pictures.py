"""What a run's ``nodes.jsonl`` says, in pictures for its page: staleness, seconds and speed, node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from hsa2c.errors import ConfigError
from hsa2c.observe.plot import COLOURS
from hsa2c.observe.runlog import NODES, number, read_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS = 40  # of a histogram; with more values each stands for several
_NAMED = 24  # nodes whose numbers all fit below a picture
_SECONDS = {"computing": COLOURS[2], "waiting": COLOURS[4], "without a core": "#bbbbbb"}
_EXCHANGING = COLOURS[0]
_SLOWEST = COLOURS[1]


@dataclass
class NodeTotals:
    """A node over the whole run; seconds of processes are sums over them."""

    host: str = ""
    updates: float = 0.0
    pushes: float = 0.0
    seconds: float = 0.0
    """Of training in which it was heard of."""
    wall_s: float = 0.0
    computing_s: float = 0.0
    waiting_s: float = 0.0
    exchanging_s: float = 0.0
    taus: Counter[int] = field(default_factory=Counter)
    overlaps: Counter[int] = field(default_factory=Counter)
    norms: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Updates a second."""
        return self.updates / self.seconds if self.seconds > 0 else 0.0

    def add(self, record: Mapping[str, Any], seconds: float) -> None:
        """Take in what a line of the file says of it."""
        self.host = str(record.get("host") or self.host)
        self.seconds += seconds
        for key in ("updates", "pushes", "wall_s", "computing_s", "waiting_s", "exchanging_s"):
            setattr(self, key, getattr(self, key) + (number(record.get(key)) or 0))
        self.taus.update(_counts(record.get("tau")))
        self.overlaps.update(_counts(record.get("overlap")))
        for values, key in ((self.norms, "delta_norm"), (self.cosines, "delta_cosine")):
            if (value := number(record.get(key))) is not None:
                values.append(value)


def read_totals(run: Path) -> dict[int, NodeTotals]:
    """Every node of a run, by number; none where the run has no ``nodes.jsonl``."""
    try:
        history = read_history(run / NODES)
    except ConfigError:
        return {}
    totals: dict[int, NodeTotals] = {}
    for row in history:
        records = row.get("nodes")
        for record in records if isinstance(records, list) else []:
            if isinstance(record, dict) and type(node := record.get("node")) is int and node >= 0:
                totals.setdefault(node, NodeTotals()).add(record, number(row.get("seconds")) or 0.0)
    return dict(sorted(totals.items()))


def _counts(value: object) -> Counter[int]:
    """A histogram as it is on file: values, as text, to how often there were."""
    if not isinstance(value, dict):
        return Counter()
    known = {key: number(count) for key, count in value.items() if key.isdecimal() and len(key) < 10}
    return Counter({int(key): int(count) for key, count in known.items() if count is not None and count > 0})


def slowest_text(totals: Mapping[int, NodeTotals]) -> str:
    """The slowest node by its host's name, in a sentence; empty where there are no two."""
    speeds = {node: total.speed for node, total in totals.items()}
    if len(speeds) < 2:
        return ""
    slow, fast = min(speeds, key=lambda node: speeds[node]), max(speeds, key=lambda node: speeds[node])
    usual = median(speed for node, speed in speeds.items() if node != slow)
    share = f"{speeds[slow] / usual:.2f} of the median of the others; " if usual > 0 else ""
    return (
        f"Slowest: node {slow}{_on(totals[slow])}, {speeds[slow]:,.1f} updates/s, {share}"
        f"fastest: node {fast}{_on(totals[fast])}, {speeds[fast]:,.1f} updates/s."
    )


def _on(total: NodeTotals) -> str:
    return f" on {total.host}" if total.host else ""


def pictures(totals: Mapping[int, NodeTotals]) -> dict[str, tuple[str, Figure]]:
    """What there is to add to a section of the page, by its title: a text and a picture."""
    found = {}
    if any(total.taus or total.overlaps for total in totals.values()):
        found["Staleness"] = (_staleness_text(totals), _staleness(totals))
    if any(total.wall_s for total in totals.values()):
        found["Where the time goes"] = (_SECONDS_TEXT, _seconds(totals))
    if len(totals) > 1 and any(total.updates for total in totals.values()):
        found["Speed"] = (slowest_text(totals), _speeds(totals))
    if len(totals) > 1 and any(total.norms for total in totals.values()):
        found["Deltas"] = ("Means of each node over the run.", _deltas(totals))
    return found


_SECONDS_TEXT = (
    "Of each node's processes: seconds of a processor; waiting for each other and for v; and the rest, in which they "
    "had no core. Beside it, the share of time in which the node exchanges, that is sends its delta or waits for v: in "
    "the background, or while its processes wait (exchange: paper)."
)


def _staleness_text(totals: Mapping[int, NodeTotals]) -> str:
    largest = max((max(total.taus, default=0) for total in totals.values()), default=0)
    overlap = max((max(total.overlaps, default=0) for total in totals.values()), default=0)
    return f"Over the whole run: the largest delay seen, D', is {largest}; the largest overlap, D, is {overlap}."


def _staleness(totals: Mapping[int, NodeTotals]) -> Figure:
    figure = new_figure()
    across = 3 if len(totals) > 1 else 2
    taus, overlaps = Counter[int](), Counter[int]()
    for total in totals.values():
        taus.update(total.taus)
        overlaps.update(total.overlaps)
    histogram(figure.add_subplot(1, across, 1), taus, "delay τ of a delta (global steps)", "deltas", COLOURS[0])
    axes = figure.add_subplot(1, across, 2)
    histogram(axes, overlaps, "overlap: updates by others from read to write", "updates", COLOURS[2])
    if across == 3:
        _extremes(figure.add_subplot(1, across, 3), totals)
    return figure


def _extremes(axes: Axes, totals: Mapping[int, NodeTotals]) -> None:
    """Mean and largest delay and overlap of each node."""
    top = 1
    for counts, colour, what in (
        ([total.taus for total in totals.values()], COLOURS[0], "delay τ"),
        ([total.overlaps for total in totals.values()], COLOURS[2], "overlap"),
    ):
        places, largest = range(len(counts)), [max(each, default=0) for each in counts]
        axes.plot(places, [_mean(each) for each in counts], "o", color=colour, markersize=4, label=f"{what}, mean")
        axes.plot(places, largest, "_", color=colour, markersize=9, mew=2, label=f"{what}, largest")
        top = max(top, *largest)
    axes.set_ylim(-0.05 * top, 1.45 * top)  # room for the legend
    _by_node(axes, totals, "of each node", hosts=False)
    axes.legend(fontsize=6, loc="upper left", ncols=2)


def histogram(axes: Axes, counts: Mapping[int, int], title: str, of: str, colour: str) -> None:
    """Shares on a logarithmic scale, or the rare large ones, which bounds are about, could not be seen."""
    from matplotlib.ticker import MaxNLocator

    if not counts:
        _label(axes, f"{title}\nnone")
        return
    every, largest = sum(counts.values()), max(counts)
    width = largest // _BARS + 1
    shares = [0.0] * (largest // width + 1)
    for value, count in counts.items():
        shares[value // width] += count / every
    axes.bar([(k + 0.5) * width - 0.5 for k in range(len(shares))], shares, 0.85 * width, color=colour)
    axes.set_xlim(-0.6, max(largest + 0.6, 4.6))
    axes.set_yscale("log")
    axes.set_ylim(min([0.05, *(share / 2 for share in shares if share)]), 2)
    axes.set_ylabel(f"share of {every:,} {of}", fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    wide = f", bars of {width}" if width > 1 else ""
    _label(axes, f"{title}\nmean {_mean(counts):.2f}, largest {largest}{wide}")


def _seconds(totals: Mapping[int, NodeTotals]) -> Figure:
    figure = new_figure()
    axes = figure.add_subplot(1, 1, 1)
    places = list(range(len(totals)))
    shares = {what: [_shares(total)[what] for total in totals.values()] for what in _SECONDS}
    below = [0.0] * len(places)
    for what, colour in _SECONDS.items():
        left = [place - 0.12 for place in places]
        axes.bar(left, shares[what], 0.52, bottom=below, color=colour, label=f"processes: {what}")
        below = [a + b for a, b in zip(below, shares[what], strict=True)]
    exchanging = [total.exchanging_s / total.seconds if total.seconds > 0 else 0.0 for total in totals.values()]
    axes.bar([place + 0.29 for place in places], exchanging, 0.22, color=_EXCHANGING, label="node: exchanging")
    axes.set_ylim(0, max(1.0, *exchanging, *below) * 1.02)
    axes.set_xlim(-0.6, max(len(places) - 0.4, 3.6))
    _by_node(axes, totals, "share of time")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _shares(total: NodeTotals) -> dict[str, float]:
    """Of the processes' time; threads beside a process's main one may make it compute more than its wall-clock."""
    whole = max(total.wall_s, total.computing_s + total.waiting_s, 1e-9)
    computing, waiting = total.computing_s / whole, total.waiting_s / whole
    return {"computing": computing, "waiting": waiting, "without a core": max(0.0, 1.0 - computing - waiting)}


def _speeds(totals: Mapping[int, NodeTotals]) -> Figure:
    figure = new_figure(height=2.2)
    axes = figure.add_subplot(1, 1, 1)
    speeds = [total.speed for total in totals.values()]
    slow = speeds.index(min(speeds))
    axes.bar(range(len(speeds)), speeds, 0.6, color=[_SLOWEST if k == slow else COLOURS[0] for k in range(len(speeds))])
    axes.axhline(median(speeds), color="#555555", linewidth=1, linestyle="--", label="median")
    axes.set_xlim(-0.6, max(len(speeds) - 0.4, 3.6))
    _by_node(axes, totals, "updates a second; the slowest node in another colour")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _deltas(totals: Mapping[int, NodeTotals]) -> Figure:
    figure = new_figure(height=2.2)
    columns = (
        ([total.norms for total in totals.values()], "norm of its deltas"),
        ([total.cosines for total in totals.values()], "cosine with the mean delta of the step before"),
    )
    for place, (values, title) in enumerate(columns):
        axes = figure.add_subplot(1, 2, place + 1)
        known = [(node, sum(some) / len(some)) for node, some in enumerate(values) if some]
        if known:
            axes.bar([node for node, _ in known], [mean for _, mean in known], 0.6, color=COLOURS[place])
        axes.axhline(0, color="#777777", linewidth=0.8)
        axes.set_xlim(-0.6, max(len(values) - 0.4, 3.6))
        _by_node(axes, totals, title)
    return figure


def new_figure(height: float = 2.7) -> Figure:
    """An empty one, `height` inches high and as wide as the page."""
    from matplotlib.figure import Figure

    return Figure(figsize=(11, height), dpi=110, layout="constrained")


def _by_node(axes: Axes, totals: Mapping[int, NodeTotals], title: str, *, hosts: bool = True) -> None:
    """The nodes along the bottom, with their hosts where there is room."""
    every = -(-len(totals) // _NAMED)
    several = hosts and len({total.host for total in totals.values()}) > 1 and len(totals) <= 8
    names = [f"{node}\n{total.host}" if several else str(node) for node, total in totals.items()]
    axes.set_xticks(range(0, len(totals), every), [name.replace("$", r"\$") for name in names[::every]])
    axes.set_xlabel("node", fontsize=8)
    axes.grid(visible=False, axis="x")
    _label(axes, title)


def _label(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=8, loc="left", fontweight="normal")
    axes.tick_params(labelsize=7)


def _mean(counts: Mapping[int, int]) -> float:
    return sum(value * count for value, count in counts.items()) / max(sum(counts.values()), 1)
