"""Patience of the ports, with a scripted transport and a clock of its own: nothing waits here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hsa2c.dpsgd.protocols import Pulled
from hsa2c.errors import NodeError, TransportError
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.worker_port import BaseWorkerPort
from tests.dpsgd.monitors import Record

V = np.zeros(2, np.float32)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Script(BaseMasterPort):
    """A port whose messages are listed: each with the seconds that the master listens until it comes."""

    def __init__(self, nodes: int, limits: Limits, clock: Clock, *, spares: int = 0, leads: bool = True) -> None:
        super().__init__(nodes, limits, spares=spares, leads=leads, clock=clock.monotonic)
        self.can_replace = False
        self.replaced: list[int] = []
        self.forgotten: list[int] = []
        self.clock = clock
        self.coming: list[tuple[float, Message | None]] = []
        self.otherwise: Callable[[], tuple[float, Message | None]] = lambda: (0.005, None)
        self.answered: list[tuple[int, Pulled | None]] = []
        self.stop_said = 0

    def _receive(self) -> Message | None:
        seconds, message = self.coming.pop(0) if self.coming else self.otherwise()
        self.clock.now_s += seconds
        return message

    def _answer(self, node: int, pulled: Pulled | None) -> None:
        self.answered.append((node, pulled))

    def _say_stop(self) -> None:
        self.stop_said += 1

    def _forget(self, node: int) -> None:
        self.forgotten.append(node)

    def _replace(self, node: int) -> bool:
        if self.can_replace:
            self.replaced.append(node)
        return self.can_replace


@pytest.fixture
def clock() -> Clock:
    return Clock()


def assembled(clock: Clock, nodes: int = 2, **limits: float) -> Script:
    port = Script(nodes, Limits(**{"start_s": 600.0, "silence_s": 60.0} | limits), clock)
    port.coming = [(1.0, Message(Kind.PULL, node)) for node in range(nodes)]
    assert port.assemble(Record())
    return port


def collect(port: Script, M: int = 1, monitor: Record | None = None) -> list[int]:
    return [push.node for push in port.collect(M, serving=V, t=0, monitor=monitor or Record())]


def push(node: int) -> Message:
    return Message(Kind.PUSH, node, 0, V)


class Waiting(BaseWorkerPort):
    """A node whose answer comes after a while; what it sends is kept, with the time."""

    def __init__(self, clock: Clock, answer_at_s: float) -> None:
        super().__init__(3, Limits(start_s=600.0, silence_s=60.0), clock=clock.monotonic)
        self._watch_clock = clock
        self._answer_at_s = answer_at_s
        self.sent: list[tuple[Kind, float]] = []

    def _post(self, kind: Kind, **_: Any) -> Callable[[], None]:
        self.sent.append((kind, self._watch_clock.now_s - 1000.0))
        return lambda: None

    def _receive_answer(self, limit_s: float) -> tuple[bool, Pulled | None]:
        arrives = self._answer_at_s - (self._watch_clock.now_s - 1000.0) <= limit_s
        self._watch_clock.now_s = 1000.0 + self._answer_at_s if arrives else self._watch_clock.now_s + limit_s
        return arrives, Pulled(V, 7, 1.0) if arrives else None


def test_node_that_waits_for_v_shows_that_it_is_there() -> None:
    port = Waiting(Clock(), 12.5)
    pulled = port.pull()
    assert pulled is not None
    assert pulled.t == 7
    assert port.sent == [(Kind.PULL, 0.0), (Kind.TELL, 5.0), (Kind.TELL, 10.0)]
    assert port.waited_s == 12.5


def test_node_that_waits_for_too_long_gives_up_all_the_same() -> None:
    port = Waiting(Clock(), 10.0)
    port.pull()
    port._answer_at_s = 1e9
    with pytest.raises(TransportError, match=r"^node 3: no reply from the master in 60 s \(pull, last t=7\)$"):
        port.pull()
    assert port._watch_clock.now_s == 1070.0


def test_node_that_was_stopped_while_it_waited_does_not_give_up() -> None:
    """It is suspended for a day; on the second look after that the answer is there."""
    port = Waiting(Clock(), 24 * 3600 + 12.5)
    arrive = port._receive_answer

    def suspended_once(limit_s: float) -> tuple[bool, Pulled | None]:
        if len(port.sent) == 2:  # the pull, and one sign of life
            port._watch_clock.now_s += 24 * 3600
            return False, None
        return arrive(limit_s)

    port._receive_answer = suspended_once  # type: ignore[method-assign]
    pulled = port.pull()
    assert pulled is not None
    assert [kind for kind, _ in port.sent] == [Kind.PULL, Kind.TELL, Kind.TELL, Kind.TELL]


def test_silence_among_silent_ones(clock: Clock) -> None:
    port = assembled(clock)
    with pytest.raises(TransportError, match=r"^node 0: silent for 60 s \(limit 60 s\)$"):
        collect(port)
    assert clock.now_s == pytest.approx(1062, abs=0.1)


def test_silence_though_another_talks_all_the_time(clock: Clock) -> None:
    port = assembled(clock)
    port.coming = [(0.001, Message(Kind.TELL, 0, text=b"[]")) for _ in range(20_000)] + [(0.0, push(0))]
    monitor = Record()
    assert collect(port, 2, monitor) == [0]
    assert monitor.losses == [(1, "silent for 15 s")]


def test_one_that_is_heard_again_counts_again(clock: Clock) -> None:
    port = assembled(clock)
    talk = [(0.5, Message(Kind.TELL, 0)) for _ in range(40)]
    port.coming = [*talk, (0.1, Message(Kind.TELL, 1)), (0.1, push(0)), (0.1, push(1))]
    monitor = Record()
    assert collect(port, 2, monitor) == [0, 1]
    assert (monitor.losses, monitor.returns) == ([(1, "silent for 16 s")], [(1, "is heard again")])


def test_dead_node_is_replaced_and_the_new_one_answered(clock: Clock) -> None:
    port = assembled(clock)
    port.can_replace = True
    port.coming = [
        (0.1, Message(Kind.DIED, 1, text=b"its process has died")),
        (0.1, push(0)),  # enough meanwhile
        (0.1, Message(Kind.TELL, 1, text=b"[]")),
        (0.1, Message(Kind.PULL, 1)),
        (0.1, push(0)),
        (0.1, push(1)),
    ]
    monitor = Record()
    assert collect(port, 2, monitor) == [0]
    assert collect(port, 2, monitor) == [0, 1]
    assert (port.replaced, port.forgotten) == ([1], [1])
    assert monitor.losses == [(1, "its process has died")]
    assert monitor.returns == [(1, "begins, in place of the one that was lost")]
    assert [node for node, _ in port.answered] == [0, 1, 1]


def test_node_that_dies_soon_three_times_is_not_replaced_again(clock: Clock) -> None:
    port = assembled(clock)
    port.can_replace = True
    dies, comes = Message(Kind.DIED, 1, text=b"x"), Message(Kind.PULL, 1)
    port.coming = [(0.1, message) for _ in range(2) for message in (dies, comes)] + [(0.1, dies), (0.1, push(0))]
    assert collect(port, 2) == [0]
    assert port.replaced == [1, 1]


def test_node_that_worked_for_a_while_is_replaced_as_often_as_it_dies(clock: Clock) -> None:
    port = assembled(clock)
    port.can_replace = True
    dies, comes = Message(Kind.DIED, 1, text=b"x"), Message(Kind.PULL, 1)
    works = [(1.0, Message(Kind.TELL, node)) for _ in range(20) for node in (0, 1)]
    port.coming = [item for _ in range(6) for item in (*works, (0.1, dies), (0.1, comes))] + [(0.1, push(1))]
    assert collect(port, 1) == [1]
    assert port.replaced == [1] * 6


def test_replacement_that_cannot_start_is_told_of(clock: Clock) -> None:
    port = assembled(clock)
    port.can_replace = True
    fails = Message(Kind.DIED, 1, text=b"cannot be replaced: no memory")
    port.coming = [(0.1, Message(Kind.DIED, 1, text=b"x")), (0.1, fails), (0.1, fails), (0.1, push(0))]
    monitor = Record()
    assert collect(port, 2, monitor) == [0]
    assert [why for _, why in monitor.losses] == ["x", *["cannot be replaced: no memory"] * 2]


def test_end_when_nobody_is_left_and_nobody_comes(clock: Clock) -> None:
    port = assembled(clock)
    port.coming = [(0.1, Message(Kind.DIED, 1, text=b"x")), (0.1, Message(Kind.FAIL, 0, text=b"node 0: no\nTraceback"))]
    with pytest.raises(NodeError, match=r"^node 0: no\nTraceback$"):
        collect(port, 2)


def test_waiting_for_replacements_of_all_has_a_limit(clock: Clock) -> None:
    port = assembled(clock)
    port.can_replace = True
    port.coming = [(0.1, Message(Kind.DIED, node, text=b"x")) for node in range(2)]
    with pytest.raises(TransportError, match=r"^no node is left, and none came in 600 s$"):
        collect(port)


def test_spare_is_not_answered_before_it_is_needed(clock: Clock) -> None:
    port = Script(2, Limits(start_s=600.0, silence_s=60.0), clock, spares=1)
    port.coming = [(1.0, Message(Kind.PULL, node)) for node in (2, 0, 1)]
    assert port.assemble(Record())
    talk = [(1.0, Message(Kind.TELL, node)) for _ in range(60) for node in (0, 1)]  # a spare may be silent
    port.coming = [*talk, (0.1, push(0)), (0.1, Message(Kind.DIED, 0, text=b"x")), (0.1, push(2)), (0.1, push(1))]
    monitor = Record()
    assert collect(port, 2, monitor) == [0, 2]
    assert [node for node, _ in port.answered] == [0, 1, 2]
    assert monitor.losses == [(0, "x")]
    assert monitor.returns == [(2, "begins, in place of node 0")]


def test_spare_begins_for_a_node_that_is_silent_and_both_count_when_it_is_heard_again(clock: Clock) -> None:
    port = Script(2, Limits(start_s=600.0, silence_s=60.0), clock, spares=1)
    port.coming = [(0.5, Message(Kind.PULL, node)) for node in (2, 0, 1)]
    assert port.assemble(Record())
    monitor = Record()
    port.coming = [(1.0, Message(Kind.TELL, 0)) for _ in range(20)] + [(0.1, push(2)), (0.1, push(0))]
    assert collect(port, M=2, monitor=monitor) == [2, 0]
    assert monitor.losses == [(1, "silent for 16 s")]
    assert monitor.returns == [(2, "begins, in place of node 1")]
    assert [node for node, _ in port.answered] == [0, 1, 2]
    port.coming = [(0.1, push(1)), (0.1, Message(Kind.PULL, 1)), (0.1, push(0))]
    assert collect(port, M=2, monitor=monitor) == [1, 0]
    assert monitor.returns[1:] == [(1, "is heard again")]
    assert port.quorum(2) == 2


def test_spare_that_is_not_needed_leaves_with_the_others(clock: Clock) -> None:
    port = Script(2, Limits(start_s=600.0, silence_s=60.0), clock, spares=1)
    port.coming = [(1.0, Message(Kind.PULL, node)) for node in (2, 0, 1)]
    assert port.assemble(Record())
    port.coming = [(0.1, Message(Kind.LEAVE, node, vector=V)) for node in range(3)]
    monitor = Record()
    assert list(port.drain(monitor=monitor)) == []
    assert (2, None) in port.answered
    assert not monitor.losses


def test_spares_begin_where_the_leading_master_says(clock: Clock) -> None:
    """This master has lost both nodes, and would have taken spare 3 first; the lead calls 2, then 3."""
    port = Script(2, Limits(start_s=600.0, silence_s=60.0), clock, spares=2, leads=False)
    port.coming = [(1.0, Message(Kind.PULL, node)) for node in (3, 0, 1)]
    assert port.assemble(Record())
    dies = [(0.1, Message(Kind.DIED, node, text=b"x")) for node in (0, 1)]
    port.coming = [*dies, *[(1.0, None)] * 9]
    monitor = Record(stop=lambda _: not port.coming)
    assert collect(port, 2, monitor) == []
    assert [node for node, _ in port.answered] == [0, 1], "no spare without the lead's word"
    port.call(2, monitor)  # before its pull has come
    port.coming = [(0.1, Message(Kind.PULL, 2)), (0.1, push(2)), *[(1.0, None)] * 9]
    assert collect(port, 2, monitor) == [2], "half of the nodes, half of the deltas"
    port.call(3, monitor)
    port.call(3, monitor)
    port.coming = [(0.1, push(3)), (0.1, push(2)), *[(1.0, None)] * 9]
    assert collect(port, 2, monitor) == [3, 2]
    assert [node for node, _ in port.answered] == [0, 1, 2, 3]
    assert monitor.returns == [(2, "begins"), (3, "begins")]


def test_master_that_does_not_lead_ends_with_its_last_node_if_no_spare_is_left(clock: Clock) -> None:
    port = Script(1, Limits(start_s=600.0, silence_s=60.0), clock, spares=1, leads=False)
    port.coming = [(1.0, Message(Kind.PULL, 0))]
    assert port.assemble(Record())
    port.coming = [(0.1, Message(Kind.DIED, node, text=b"x")) for node in (1, 0)]
    with pytest.raises(NodeError, match=r"^node 0: x$"):
        collect(port)


def test_a_sign_of_life_is_enough(clock: Clock) -> None:
    port = assembled(clock, nodes=1)
    port.coming = [(0.9, None if n % 60 else Message(Kind.TELL, 0)) for n in range(600)] + [(0.0, push(0))]
    assert collect(port) == [0]


def test_messages_that_wait_while_the_master_is_busy_count(clock: Clock) -> None:
    port = assembled(clock, nodes=3)
    clock.now_s += 3600.0  # line 3, or a checkpoint on a slow disk
    port.coming = [(0.0, Message(Kind.TELL, node, text=b"[]")) for node in (2, 1)] + [(0.0, push(0))]
    assert collect(port) == [0]


def test_a_master_that_was_suspended_listens_again_first(clock: Clock) -> None:
    port = assembled(clock)
    port.coming = [(3600.0, None), (0.1, Message(Kind.TELL, 1)), (0.1, push(0))]
    assert collect(port) == [0]


def test_start_has_a_limit_of_its_own(clock: Clock) -> None:
    port = Script(3, Limits(start_s=600.0, silence_s=60.0), clock)
    port.coming = [(1.0, Message(Kind.PULL, 0)), (1.0, Message(Kind.PULL, 2))]
    with pytest.raises(TransportError, match=r"^node 1: .*600 s"):
        port.assemble(Record())


def test_waiting_for_the_others_at_the_start_is_no_silence(clock: Clock) -> None:
    port = Script(2, Limits(start_s=600.0, silence_s=60.0), clock)
    port.coming = [
        (0.5, Message(Kind.PULL, 0)),
        *[(0.5, None)] * 1000,
        (0.5, Message(Kind.PULL, 1)),
        *[(0.5, None)] * 100,
        (0.5, push(0)),
    ]
    assert port.assemble(Record())
    assert collect(port) == [0]


def test_one_that_left_may_be_silent(clock: Clock) -> None:
    port = assembled(clock)
    state = np.ones(3, np.float32)
    talk = [(0.5, None if n % 20 else Message(Kind.TELL, 1)) for n in range(600)]
    port.coming = [(0.1, Message(Kind.LEAVE, 0, vector=state)), *talk, (0.1, Message(Kind.LEAVE, 1, vector=state))]
    monitor = Record()
    assert list(port.drain(monitor=monitor)) == []
    assert sorted(monitor.states) == [0, 1]
    assert port.stop_said == 1
    assert port.answered == [(0, None), (1, None)]


def test_one_that_does_not_leave_is_named(clock: Clock) -> None:
    port = assembled(clock)
    port.coming = [(0.1, Message(Kind.LEAVE, 0, vector=V))]
    monitor = Record()
    assert list(port.drain(monitor=monitor)) == []
    assert monitor.losses == [(1, "silent for 15 s")]
    assert clock.now_s == pytest.approx(1017, abs=0.2)


def test_pulls_are_answered_in_the_order_of_arrival(clock: Clock) -> None:
    port = assembled(clock, nodes=3)
    port.coming = [(0.0, push(2)), (0.0, Message(Kind.PULL, 2)), (0.0, push(0)), (0.0, Message(Kind.PULL, 0))]
    assert collect(port, M=2) == [2, 0]
    assert [node for node, _ in port.answered] == [0, 1, 2, 2]  # node 0's second is for the next v


def test_nothing_is_answered_once_the_monitor_says_stop(clock: Clock) -> None:
    port = assembled(clock)
    assert collect(port, monitor=Record(stop=lambda _: True)) == []
    assert port.answered == []
