"""What the master knows of each node: its delays, its overlaps, what its seconds go into, and whether it keeps up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from hsa2c.dpsgd.protocols import Push

WINDOW_S = 60.0
"""How far back one looks for the slowest node."""
SLOW = 0.5
"""A node is clearly slow if it made less than this share of the others' median of updates in a whole window."""
NOT_SLOW = 0.75
"""From this share on it is not slow any more."""
_HISTOGRAM = 100_000  # most samples of one


class Slowest(NamedTuple):
    """The node with the fewest updates."""

    node: int
    share: float
    """Its updates, as a share of the median of the other nodes'."""
    window_s: float
    """In the last so many seconds."""


class Headway:
    """Who makes how many updates, over the last minute; whoever was not there throughout is left out.

    Args:
        nodes: Nodes 0 to `nodes` - 1 are there at the start.
    """

    def __init__(self, nodes: int) -> None:
        self._done = dict.fromkeys(range(nodes), 0)
        self._marks: deque[tuple[float, dict[int, int]]] = deque()

    def count(self, node: int, updates: int) -> None:
        """A node has made updates."""
        self._done[node] = self._done.get(node, 0) + updates

    def drop(self, node: int) -> None:
        """A node is gone; if it comes back, it begins anew."""
        for _, done in [(0.0, self._done), *self._marks]:
            done.pop(node, None)

    def mark(self, now: float) -> None:
        """So much was done by now, in seconds: at the start of training, and every few seconds."""
        self._marks.append((now, dict(self._done)))
        while len(self._marks) > 1 and self._marks[1][0] <= now - WINDOW_S:
            self._marks.popleft()

    def slowest(self) -> Slowest | None:
        """As of the last mark; None where there are no two nodes to compare."""
        if len(self._marks) < 2:
            return None
        (since, before), (now, done) = self._marks[0], self._marks[-1]
        return slowest({node: done[node] - before[node] for node in before.keys() & done.keys()}, now - since)


def slowest(updates: Mapping[int, float], window_s: float) -> Slowest | None:
    """Which of these nodes made the fewest updates in so many seconds; None without two nodes, or without updates."""
    if len(updates) < 2:
        return None
    node = min(sorted(updates), key=lambda node: updates[node])
    usual = median(made for other, made in updates.items() if other != node)
    return Slowest(node, updates[node] / usual, window_s) if usual > 0 else None


@dataclass
class _Tally:
    """Of one node, since the last record."""

    updates: int = 0
    pushes: int = 0
    exchanging_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: {"wall": 0.0, "computing": 0.0, "waiting": 0.0})
    taus: Counter[int] = field(default_factory=Counter)
    overlaps: Counter[int] = field(default_factory=Counter)
    norms: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As plain values; of its processes the seconds are sums."""
        return {
            "updates": self.updates,
            "pushes": self.pushes,
            "exchanging_s": round(self.exchanging_s, 4),
            **{f"{what}_s": round(seconds, 4) for what, seconds in self.seconds.items()},
            "tau": dict(sorted(self.taus.items())),
            "tau_mean": _mean(self.taus),
            "tau_max": max(self.taus, default=None),
            "overlap": dict(sorted(self.overlaps.items())),
            "overlap_mean": _mean(self.overlaps),
            "overlap_max": max(self.overlaps, default=None),
            "delta_norm": sum(self.norms) / len(self.norms) if self.norms else None,
            "delta_cosine": sum(self.cosines) / len(self.cosines) if self.cosines else None,
        }


class NodeBook:
    """Keeps account of the nodes for `hsa2c.run.monitor.RunMonitor`.

    Args:
        nodes: How many work; spares have the numbers after theirs.
    """

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._headway = Headway(nodes)
        self._tallies: dict[int, _Tally] = {}
        self._hosts: dict[int, str] = {}
        self._pushed: set[int] = set()  # since they began
        self._exchanging_s = 0.0  # since the last row, as the next one
        self._overlaps: Counter[int] = Counter()
        self._slow: int | None = None

    # What happens.

    def begin(self, now: float) -> None:
        """Training begins."""
        self._headway.mark(now)

    def ready(self, node: int, host: str | None) -> None:
        """A node says where it is."""
        if host:
            self._hosts[node] = host

    def gone(self, node: int) -> None:
        """A node is lost."""
        self._headway.drop(node)
        self._pushed.discard(node)

    def pushed(self, push: Push, tau: int) -> None:
        """A delta came."""
        tally = self._tally(push.node)
        tally.pushes += 1
        tally.taus[tau] += 1
        if push.node in self._pushed:  # its first v may have come when all the other nodes were there
            tally.exchanging_s += push.waited_s
            self._exchanging_s += push.waited_s
        self._pushed.add(push.node)

    def applied(self, node: int, updates: int) -> None:
        """So many updates are in the delta that comes."""
        self._tally(node).updates += updates
        self._headway.count(node, updates)

    def heard(self, node: int, report: dict[str, Any]) -> None:
        """Take what `hsa2c.node.overlap` measured out of a process's report."""
        tally = self._tally(node)
        for what, seconds in report.pop("process_s", {}).items():
            tally.seconds[what] += seconds
        overlaps = {int(overlap): updates for overlap, updates in report.pop("overlap", {}).items()}
        tally.overlaps.update(overlaps)
        self._overlaps.update(overlaps)

    def looked(self, norms: Iterable[tuple[int, float]], cosines: Iterable[tuple[int, float]]) -> None:
        """What `hsa2c.observe.delta_cosines` saw."""
        for node, norm in norms:
            self._tally(node).norms.append(norm)
        for node, cosine in cosines:
            self._tally(node).cosines.append(cosine)

    # What is told.

    def row(self, now: float, seconds: float) -> tuple[dict[str, float | int | None], list[int]]:
        """Values of a row, over the `seconds` since the last one; and the overlaps of the updates."""
        overlaps, self._overlaps = self._overlaps, Counter()
        exchanging_s, self._exchanging_s = self._exchanging_s, 0.0
        self._headway.mark(now)
        slow = self._headway.slowest()
        values: dict[str, float | int | None] = {
            "staleness/overlap_mean": _mean(overlaps),
            "staleness/overlap_max": max(overlaps, default=None),
            # The mean over nodes of the share of time in which a node sends its delta or waits for v.
            "time/waiting_for_master": exchanging_s / seconds / self._nodes,
            "nodes/slowest": slow.node if slow else None,
            "nodes/slowest_share": slow.share if slow else None,
        }
        return values, _samples(overlaps)

    def slowest(self) -> str | None:
        """The slowest node and its host, in words; None where there are no two."""
        slow = self._headway.slowest()
        return None if slow is None else f"{self._name(slow.node)}, {slow.share:.2f} of the median of the others"

    def warning(self) -> str | None:
        """That a node is clearly slow and has been for a whole window; once, until it is not or another one is."""
        slow = self._headway.slowest()
        if slow is None or slow.share >= NOT_SLOW:
            self._slow = None
        elif slow.window_s >= WINDOW_S and slow.share < SLOW and slow.node != self._slow:
            self._slow = slow.node
            made = f"{slow.share:.2f} of the updates of the other nodes' median in the last {slow.window_s:.0f} s"
            return f"{self._name(slow.node)} is slow: {made}"
        return None

    def record(self) -> list[dict[str, Any]]:
        """Each node's values since the last record, for ``nodes.jsonl``."""
        tallies, self._tallies = self._tallies, {}
        return [
            {"node": node, "host": self._hosts.get(node), **tally.record()} for node, tally in sorted(tallies.items())
        ]

    def _name(self, node: int) -> str:
        return f"node {node} on {self._hosts[node]}" if node in self._hosts else f"node {node}"

    def _tally(self, node: int) -> _Tally:
        return self._tallies.setdefault(node, _Tally())


def _mean(counts: Mapping[int, int]) -> float | None:
    return sum(value * count for value, count in counts.items()) / sum(counts.values()) if counts else None


def _samples(counts: Mapping[int, int]) -> list[int]:
    """As many of each value as were counted, or in proportion fewer."""
    every = max(1, -(-sum(counts.values()) // _HISTOGRAM))
    return [value for value, count in sorted(counts.items()) for _ in range(-(-count // every))]
