"""What the master and the nodes do between two rows of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from hsa2c.dpsgd.protocols import Push
from hsa2c.node.pace import Costs
from hsa2c.observe.delta_cosines import DeltaCosines, Looks
from hsa2c.observe.per_node import NodeBook

_TAU_SAMPLE = 100_000  # delays kept between two rows, for the histogram

Values = dict[str, float | int | None]
"""Of a row, by key; None where there is nothing to say."""


class Activity:
    """Takes in each delta and what nodes report, and makes a row's values of what came since the last one.

    Attributes:
        exchanges: All so far, earlier sessions included.
        row_at: When the last row was made, in seconds of the caller's clock.
        book: The account of each node.

    Args:
        nodes: How many work.
        exchanges: Those of earlier sessions.
        now: Seconds of the caller's clock.
        averages: So many of the last numbers of v are running averages: deltas are not compared by them.
    """

    def __init__(self, nodes: int, exchanges: int, now: float, averages: int = 0) -> None:
        self.exchanges = self._exchanges_at_row = exchanges
        self.row_at = now
        self.book = NodeBook(nodes)
        self._cosines, self._averages = DeltaCosines(), averages
        self._taus: list[int] = []
        self._delta_bytes = self._v_bytes = 0
        self._slept_s = self._processor_at_s = 0.0
        self._paces: dict[int, dict[str, Any]] = {}

    def begin(self, now: float, processor_s: float) -> None:
        """Training begins, the master's thread having had so many seconds of a processor."""
        self.row_at = now
        self._slept_s, self._processor_at_s = 0.0, processor_s
        self.book.begin(now)

    def received(self, push: Push, tau: int) -> None:
        """A delta came, with its delay."""
        self.exchanges += 1
        self._delta_bytes += push.delta_bytes
        self._v_bytes += push.v_bytes
        self.book.pushed(push, tau)
        self._cosines.received(push.node, push.delta[: push.delta.size - self._averages])
        if len(self._taus) < _TAU_SAMPLE:
            self._taus.append(tau)

    def stepped(self) -> None:
        """The step of the deltas since the last call was taken."""
        self._cosines.stepped()

    def slept(self, seconds: float) -> None:
        """The master had no message."""
        self._slept_s += seconds

    def paced(self, node: int, pace: dict[str, Any]) -> None:
        """What a node measured last of its exchanges."""
        self._paces[node] = pace

    def row(self, now: float, processor_s: float) -> tuple[Values, dict[str, Sequence[float]]]:
        """Values of the row, and samples for its histograms; both begin anew then.

        Args:
            now: Seconds of the caller's clock.
            processor_s: Seconds of a processor that the master's thread has had.
        """
        seconds = max(now - self.row_at, 1e-9)
        looks = self._cosines.take()
        self.book.looked(looks.norms, looks.cosines)
        of_nodes, overlaps = self.book.row(now, seconds)
        values: Values = {
            **self._of_exchanges(seconds),
            **of_nodes,
            **_of_paces(list(self._paces.values())),
            **_of_deltas(looks),
            **self._load(seconds, processor_s),
        }
        samples: dict[str, Sequence[float]] = {
            "staleness/tau": self._taus,
            "staleness/overlap": overlaps,
            "delta/norm": [norm for _, norm in looks.norms],
            "delta/cosine": [cosine for _, cosine in looks.cosines],
        }
        self.row_at, self._exchanges_at_row, self._taus = now, self.exchanges, []
        self._delta_bytes = self._v_bytes = 0
        return values, {tag: some for tag, some in samples.items() if some}

    def _of_exchanges(self, seconds: float) -> Values:
        exchanges = self.exchanges - self._exchanges_at_row
        return {
            "speed/exchanges_per_s": exchanges / seconds,
            # On the wire, headers and reports included; None in a run of one node, which has none.
            "speed/delta_bytes_per_exchange": self._delta_bytes / exchanges if self._delta_bytes else None,
            "speed/v_bytes_per_exchange": self._v_bytes / exchanges if self._v_bytes else None,
            "staleness/mean": _mean(self._taus),
            "staleness/max": max(self._taus) if self._taus else None,
        }

    def _load(self, seconds: float, processor_s: float) -> Values:
        """How busy the master was since the last row.

        ``master/busy`` is the wall-clock less what it slept because no message was there. It is what is missing to 1
        that is left for more nodes: sending, disks and waiting for a core count, since no delta is summed meanwhile.
        ``master/processor`` is the seconds of a processor that its thread had, looking for messages included; much less
        than the other, and it waits for something else than messages.
        """
        slept_s, self._slept_s = self._slept_s, 0.0
        before_s, self._processor_at_s = self._processor_at_s, processor_s
        busy, processor = 1.0 - slept_s / seconds, (processor_s - before_s) / seconds
        return {"master/busy": min(1.0, max(0.0, busy)), "master/processor": processor}


def _of_deltas(looks: Looks) -> Values:
    return {
        "delta/norm_mean": _mean([norm for _, norm in looks.norms]),
        "delta/cosine_mean": _mean([cosine for _, cosine in looks.cosines]),
        "delta/agreement": _mean(looks.agreements),
    }


def _of_paces(paces: list[dict[str, Any]]) -> Values:
    """What the nodes measured last of their exchanges (`hsa2c.node.pace.Costs`): B, seconds, share of time lost."""
    costs = [Costs(**{field.name: pace[field.name] for field in fields(Costs)}) for pace in paces]
    updates_s = [cost.update_s(pace["p"]) for cost, pace in zip(costs, paces, strict=True) if cost.updates]
    B = [pace["B"] for pace in paces]
    return {
        "exchange/B": float(np.mean(B)) if B else None,
        "exchange/B_least": min(B, default=None),
        "exchange/B_most": max(B, default=None),
        "exchange/rate_scale": float(np.mean([pace["rate_scale"] for pace in paces])) if paces else None,
        "exchange/update_s": float(np.mean(updates_s)) if updates_s else None,
        "exchange/seconds": float(np.mean([cost.exchange_s for cost in costs])) if costs else None,
        "exchange/lost_share": float(np.mean([cost.lost_share for cost in costs])) if costs else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
