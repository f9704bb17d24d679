"""B by what exchanges cost: the rule against trying every B, and real processes whose link changes under them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsa2c.dpsgd.protocols import Pulled, Vector, WorkerPort
from hsa2c.dpsgd.worker import overlapping_worker, worker
from hsa2c.node.layout import DenseLayout
from hsa2c.node.optimiser import Rule
from hsa2c.node.pace import Costs, Pace, PacedPool, fewest_updates
from hsa2c.node.process_pool import ProcessPool
from tests.dpsgd.problems import Analytic
from tests.dpsgd.waiting import LIMIT_S, wait_until

pytestmark = pytest.mark.timeout(60)


def costs(*, B: int, p: int, update_s: float, exchange_s: float, lost_s: float, exchanges: int = 10) -> Costs:
    """What a node would measure that really is so."""
    return Costs(
        seconds=exchanges * (B * update_s + lost_s),
        updates=exchanges * B * p,
        exchanges=exchanges,
        exchanging_s=exchanges * exchange_s,
        lost_s=exchanges * lost_s,
    )


def test_one_window_by_hand() -> None:
    # 10 exchanges of 20 ms, 2 processes, B = 4 updates of 10 ms: 60 ms a round, a third of it lost.
    window = costs(B=4, p=2, update_s=0.01, exchange_s=0.02, lost_s=0.02)
    assert window.update_s(2) == pytest.approx(0.01)
    assert window.exchange_s == pytest.approx(0.02)
    assert window.lost_share == pytest.approx(1 / 3)
    # 0.02 / (0.02 + 38 * 0.01) = 0.05
    assert fewest_updates(window, 2, target=0.0501, overlapping=False) == 38
    assert fewest_updates(window, 2, target=0.501, overlapping=False) == 2


milliseconds = st.floats(0.1, 1000).map(lambda ms: ms / 1000)


@given(
    B=st.integers(1, 50),
    p=st.integers(1, 4),
    update_s=milliseconds,
    exchange_s=milliseconds,
    lost=st.floats(0.01, 1),
    target=st.floats(0.01, 0.9),
    overlapping=st.booleans(),
)
def test_rule_is_the_smallest_b_that_will_do(
    B: int, p: int, update_s: float, exchange_s: float, lost: float, target: float, overlapping: bool
) -> None:
    """Against the definition, for every B below, whatever B was measured at."""
    lost_s = lost * exchange_s if overlapping else exchange_s
    window = costs(B=B, p=p, update_s=update_s, exchange_s=exchange_s, lost_s=lost_s)

    def will_do(b: int, slack: float) -> bool:
        share = lost_s / (lost_s + b * update_s)
        return share <= target * (1 + slack) and (not overlapping or b * update_s >= exchange_s * (1 - slack))

    fewest = fewest_updates(window, p, target=target, overlapping=overlapping)
    assert will_do(fewest, 1e-6)
    assert fewest == 1 or not will_do(fewest - 1, -1e-6)


def test_a_window_without_time_for_updates_asks_for_more() -> None:
    window = Costs(seconds=5.0, updates=10, exchanges=10, exchanging_s=5.0, lost_s=5.0)
    assert fewest_updates(window, 1, target=0.05, overlapping=False) == 200
    assert (
        fewest_updates(
            Costs(seconds=5.0, updates=0, exchanges=3, exchanging_s=1.0, lost_s=1.0), 1, target=0.05, overlapping=False
        )
        == 1
    )


def at(B: int, exchange_s: float) -> Costs:
    return costs(B=B, p=1, update_s=0.01, exchange_s=exchange_s, lost_s=exchange_s)


def test_b_rises_at_once_and_falls_with_patience() -> None:
    pace = Pace(1, 1, most=100)
    why = pace.consider(at(1, 0.01))
    assert pace.B == 19
    assert why == "B = 19 instead of 1: 50.0 % of the time was lost to exchanges of 10.0 ms, an update takes 10.0 ms"
    assert pace.consider(at(19, 0.009)) is None  # 18 would do: not worth a change
    assert pace.consider(at(19, 0.001)) is None  # 2 would do
    assert pace.consider(at(19, 0.005)) is None  # 10 would do
    assert pace.consider(at(19, 0.009)) is None  # not three times in a row
    assert [pace.consider(at(19, exchange_s)) for exchange_s in (0.001, 0.005)] == [None, None]
    assert pace.B == 19
    assert pace.consider(at(19, 0.001)) is not None
    assert pace.B == 10  # the most that these three asked for


def test_b_keeps_within_its_bounds() -> None:
    pace = Pace(1, 1, most=7)
    pace.consider(at(1, 10.0))
    assert pace.B == 7
    assert pace.consider(at(7, 10.0)) is None
    fixed = Pace(3, 1)
    assert fixed.consider(at(3, 10.0)) is None
    assert (fixed.B, fixed.rate_scale) == (3, 1.0)


def test_rate_follows_b_by_eq_13() -> None:
    pace = Pace(1, 1, most=200, rate_B=8)
    assert pace.rate_scale == pytest.approx(8**0.25)
    pace.B = 128
    assert pace.rate_scale == pytest.approx(0.5)  # (8 / 128)^0.25 by hand
    pace.B = 8
    assert pace.rate_scale == 1.0


# A node whose link is slow


class SlowPort(WorkerPort):
    """A master that gives back what it gets, after a while.

    Args:
        stop: When to answer that it has stopped.
    """

    def __init__(self, stop: Callable[[], bool], exchange_s: float) -> None:
        self._stop = stop
        self.exchange_s = exchange_s
        self.v: Vector = np.zeros(1, np.float32)
        self.rates: list[float] = []
        self.items: list[dict[str, Any]] = []

    def pull(self) -> Pulled | None:
        time.sleep(self.exchange_s)
        return None if self._stop() else Pulled(self.v.copy(), 0, 1.0)

    def push(self, delta: Vector, *, since: int, report: bytes) -> None:
        self.v += delta
        self.items += json.loads(report)

    def leave(self, state: Vector) -> None:
        pass

    def stopping(self) -> bool:
        return self._stop()

    def tell(self, report: bytes) -> None:
        self.items += json.loads(report)

    def keep(self, state: Vector) -> None:
        pass

    def paces(self) -> list[dict[str, Any]]:
        """What the node measured, window by window."""
        return [item["pace"] for item in self.items if "pace" in item]


UPDATE_S = 0.002


@contextlib.contextmanager
def node(loop: Callable[..., None], pace: Pace, exchange_s: float) -> Iterator[SlowPort]:
    pool = ProcessPool(
        lambda _: Analytic(lambda u: 0 * u, seconds=UPDATE_S),
        DenseLayout(1, Rule(name="sgd", learning_rate=1.0)),
        pace.p,
    )
    stopped = threading.Event()
    with contextlib.closing(pool):
        pool.wait_ready()
        port = SlowPort(stopped.is_set, exchange_s)
        paced = PacedPool(pool, pace, window_s=0.4)
        thread = threading.Thread(target=loop, args=(port, paced, 999), daemon=True)
        thread.start()
        try:
            yield port
        finally:
            stopped.set()
            thread.join(LIMIT_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("loop", [worker, pytest.param(overlapping_worker, marks=pytest.mark.slow)])
def test_b_follows_the_link(loop: Callable[..., None]) -> None:
    """From 1 to what a slow link needs, and back when it is fast."""
    overlapping = loop is overlapping_worker
    pace = Pace(1, 2, most=1000, target=0.25, overlapping=overlapping)
    with node(loop, pace, exchange_s=0.06) as port:
        wait_until(lambda: len(port.paces()) >= 4, "windows")
        slow = pace.B
        # An update takes 2 ms or more, 60 ms of exchange: a B of 30 for the overlapped one, of 90 for 25 % otherwise.
        assert 5 <= slow <= 200
        port.exchange_s = 0.001
        wait_until(lambda: slow / 2 >= pace.B, "a smaller B")
        last = port.paces()[-1]
    assert last["exchanges"] >= 3
    assert last["exchanging_s"] < last["seconds"]
    changes = [found["why"] for found in port.paces() if found["why"]]
    assert changes[0].startswith(f"B = {port.paces()[0]['B']} instead of 1: ")


def test_a_fixed_b_is_measured_too() -> None:
    with node(worker, Pace(5, 1), exchange_s=0.02) as port:
        wait_until(lambda: len(port.paces()) >= 2, "windows")
        found = port.paces()[-1]
    window = Costs(**{key: found[key] for key in ("seconds", "updates", "exchanges", "exchanging_s", "lost_s")})
    assert (found["B"], found["why"]) == (5, None)
    assert window.updates == 5 * window.exchanges
    assert window.exchange_s >= 0.02
    assert window.lost_s == window.exchanging_s
    assert window.update_s(1) >= UPDATE_S
