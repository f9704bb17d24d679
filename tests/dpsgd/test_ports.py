"""Patience of the ports, with a scripted transport and a clock of its own: nothing waits here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hsa2c.dpsgd import ports
from hsa2c.dpsgd.ports import BaseMasterPort, Kind, Limits, Message
from hsa2c.dpsgd.transport import Pulled
from hsa2c.errors import TransportError
from tests.dpsgd.watches import Record

V = np.zeros(2, np.float32)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Script(BaseMasterPort):
    """A port whose messages are listed: each with the seconds that the master listens until it comes."""

    def __init__(self, nodes: int, limits: Limits, clock: Clock) -> None:
        super().__init__(nodes, limits)
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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ports, "time", clock)
    return clock


def assembled(clock: Clock, nodes: int = 2, **limits: float) -> Script:
    port = Script(nodes, Limits(**{"start_s": 600.0, "silence_s": 60.0} | limits), clock)
    port.coming = [(1.0, Message(Kind.PULL, node)) for node in range(nodes)]
    assert port.assemble(Record())
    return port


def collect(port: Script, M: int = 1, watch: Record | None = None) -> list[int]:
    return [push.node for push in port.collect(M, serving=V, t=0, watch=watch or Record())]


def push(node: int) -> Message:
    return Message(Kind.PUSH, node, 0, V)


def test_silence_among_silent_ones(clock: Clock) -> None:
    port = assembled(clock)
    with pytest.raises(TransportError, match=r"^node 0: silent for 60 s \(limit 60 s\)$"):
        collect(port)
    assert clock.now_s == pytest.approx(1062, abs=0.1)


def test_silence_though_another_talks_all_the_time(clock: Clock) -> None:
    port = assembled(clock)
    port.otherwise = lambda: (0.001, Message(Kind.TELL, 0, text=b"[]"))
    with pytest.raises(TransportError, match=r"^node 1: silent for 60 s \(limit 60 s\)$"):
        collect(port)
    assert clock.now_s == pytest.approx(1062, abs=0.1)


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
    with pytest.raises(TransportError, match=r"^node 1: silent for 600 s \(limit 600 s\)$"):
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
    watch = Record()
    assert list(port.drain(watch=watch)) == []
    assert sorted(watch.states) == [0, 1]
    assert port.stop_said == 1
    assert port.answered == [(0, None), (1, None)]


def test_one_that_does_not_leave_is_named(clock: Clock) -> None:
    port = assembled(clock)
    port.coming = [(0.1, Message(Kind.LEAVE, 0, vector=V))]
    with pytest.raises(TransportError, match=r"^node 1: silent for 60 s"):
        list(port.drain(watch=Record()))


def test_pulls_are_answered_in_the_order_of_arrival(clock: Clock) -> None:
    port = assembled(clock, nodes=3)
    port.coming = [(0.0, push(2)), (0.0, Message(Kind.PULL, 2)), (0.0, push(0)), (0.0, Message(Kind.PULL, 0))]
    assert collect(port, M=2) == [2, 0]
    assert [node for node, _ in port.answered] == [0, 1, 2, 2]  # node 0's second is for the next v


def test_nothing_is_answered_once_the_watch_says_stop(clock: Clock) -> None:
    port = assembled(clock)
    assert collect(port, watch=Record(stop=lambda _: True)) == []
    assert port.answered == []
