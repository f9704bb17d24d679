"""What every transport must do: one check is one small play for a master and some nodes.

A check is written against the ports alone. `test_conformance` plays all of them over queues, between threads, and over
MPI, where `tests.transport.mpi_ranks` plays them one after another in one launch. There is no torch here: each rank
would take seconds to load it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

import numpy as np

from hsa2c.dpsgd.master import master as algorithm_1
from hsa2c.dpsgd.protocols import Listener, Vector
from hsa2c.dpsgd.steps import GlobalStep, constant_factor_rho
from hsa2c.dpsgd.worker import Pool
from hsa2c.dpsgd.worker import worker as algorithm_2
from hsa2c.errors import HSA2CError, NodeError, TransportError
from hsa2c.transport.codec import BLOCK, Encoding, encode
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.messages import Limits
from hsa2c.transport.several_masters import Followers, MasterLink
from hsa2c.transport.worker_port import BaseWorkerPort
from tests.dpsgd.monitors import Record
from tests.dpsgd.waiting import LIMIT_S, wait_until
from tests.transport.links import Leading

MASTER = -1
NODES = 3  # the most that a check uses


class Cues(Protocol):
    """Signs between players that the transport under test knows nothing of."""

    def give(self, to: int) -> None:
        """Tell a node, or MASTER, to go on."""

    def take(self, source: int) -> None:
        """Wait until a node, or MASTER, has told so."""


class Check:
    """One property of a transport."""

    only: ClassVar[str | None] = None
    masters: ClassVar[int] = 1  # more only over MPI, with `follow` in the others
    nodes: ClassVar[int] = 1
    dim: ClassVar[int] = 5
    node_dim: ClassVar[int | None] = None  # what nodes take for dim, if that is not dim
    state_dim: ClassVar[int] = 3
    foreign: ClassVar[bool] = False  # whether the nodes are of another run
    limits: ClassVar[Limits] = Limits(start_s=LIMIT_S, silence_s=LIMIT_S)
    encoding: ClassVar[Encoding] = Encoding.FLOAT32

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        """The master's part; a failure is an exception."""
        raise NotImplementedError

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        """A node's part."""
        raise NotImplementedError


def bits(seed: int, size: int) -> Vector:
    """Any float32s at all: NaNs, infinities and subnormal numbers too, and certainly -0."""
    numbers = np.random.default_rng(seed).integers(0, 2**32, size, dtype=np.uint32).view(np.float32)
    numbers[-1] = -0.0
    return numbers


def delta(seed: int, size: int) -> Vector:
    """Any float32s below 2: a delta must be finite. Subnormal numbers too, and certainly -0."""
    return (bits(seed, size).view(np.uint32) & np.uint32(0xBFFF_FFFF)).view(np.float32)


def same(a: Vector, b: Vector) -> bool:
    return a.dtype == b.dtype == np.float32 and a.tobytes() == b.tobytes()


@contextlib.contextmanager
def refused(kind: type[HSA2CError], *words: str) -> Iterator[None]:
    """The block must raise an error of this kind that says these words."""
    try:
        yield
    except kind as error:
        missing = [word for word in words if word not in str(error)]
        assert not missing, f"{missing} not in: {str(error)[:500]}"
    else:
        raise AssertionError(f"no {kind.__name__}")


def take(port: BaseMasterPort, M: int, v: Vector, t: int, monitor: Record) -> list[tuple[int, Vector, int]]:
    """Node, delta and since of the next M pushes."""
    return [(w.node, w.delta.copy(), w.since) for w in port.collect(M, serving=v, t=t, monitor=monitor)]


def dismiss(port: BaseMasterPort, monitor: Record | None = None) -> list[tuple[int, Vector, int]]:
    """The last pushes, until all have left."""
    return [(w.node, w.delta.copy(), w.since) for w in port.drain(monitor=monitor or Record())]


def part(port: BaseWorkerPort, state: Vector) -> None:
    """A node's end, once the master says stop."""
    wait_until(port.stopping, "stop")
    assert port.pull() is None
    port.leave(state)


def pull(port: BaseWorkerPort) -> tuple[Vector, int]:
    pulled = port.pull()
    assert pulled is not None
    return pulled.v, pulled.t


class VectorsAreExact(Check):
    nodes = 3

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record(rates=(0.3,))
        assert port.assemble(monitor)
        pushes = sorted(take(port, self.nodes, bits(50, self.dim), 2**40, monitor), key=lambda push: push[0])
        assert [node for node, _, _ in pushes] == [0, 1, 2]
        for node, w, since in pushes:
            assert same(w, delta(node, self.dim))
            assert since == 2**40 - node
        assert dismiss(port, monitor) == []
        assert sorted(monitor.states) == [0, 1, 2]
        assert all(same(state, delta(60 + node, self.state_dim)) for node, state in monitor.states.items())

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        pulled = port.pull()
        assert pulled is not None
        assert same(pulled.v, bits(50, self.dim))
        assert (pulled.t, pulled.rate_scale) == (2**40, 0.3)
        w = delta(node, self.dim)
        port.push(w, since=pulled.t - node, report=b"[]")
        w[:] = 1  # what a port was given may be used again at once
        part(port, delta(60 + node, self.state_dim))


class LargeVectorsAreExact(VectorsAreExact):
    dim = 700_001  # the size of the paper's network; MPI carries these in another way than small ones
    state_dim = 2 * dim + 1  # Adam's


class EmptyStateIsFine(Check):
    state_dim = 0  # plain SGD's

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        take(port, 1, bits(0, self.dim), 0, monitor)
        dismiss(port, monitor)
        assert monitor.states[0].size == 0
        assert monitor.events == [("kept", 0), ("kept", 0)]

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        port.pull()
        port.keep(np.zeros(0, np.float32))
        port.push(delta(0, self.dim), since=0, report=b"")
        part(port, np.zeros(0, np.float32))


class VStaysAsPulled(Check):
    """The master changes v in place; a node goes on with what it pulled until it pulls again."""

    nodes = 2
    dim = 100_000

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        v = np.ones(self.dim, np.float32)
        assert port.assemble(monitor)
        for t in range(2):
            take(port, 1, v, t, monitor)
            v += 1
            if t == 0:
                cues.give(0)
                cues.give(1)
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        v, t = pull(port)
        if node == 0:
            port.push(v, since=t, report=b"[]")
        cues.take(MASTER)
        assert t == 0
        assert (v == 1).all()
        if node == 0:
            v, t = pull(port)
            assert t == 1
            assert (v == 2).all()
            port.push(v, since=t, report=b"[]")
        part(port, np.zeros(self.state_dim, np.float32))


class SlowReaderGetsWhatWasSent(Check):
    """Node 0 does not look at its answer for a while; meanwhile v goes on, and what was sent is not touched."""

    nodes = 2
    dim = 700_001

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record(stop=lambda record: record.t == 4)
        v = np.ones(self.dim, np.float32)
        assert port.assemble(monitor)
        assert algorithm_1(v, GlobalStep(1.0, 0.0, self.dim), port, monitor, 1) == 4
        assert (v == 5).all()

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        if node == 0:
            port.ask()
            cues.take(1)
            pulled = port.answer()
            assert pulled is not None
            assert pulled.t == 0
            assert (pulled.v == 1).all()
            cues.give(1)
        else:
            for t in range(4):
                v, pulled_t = pull(port)
                assert pulled_t == t
                assert (v == t + 1).all()
                if t == 3:
                    cues.give(0)
                    cues.take(0)
                port.push(np.ones(self.dim, np.float32), since=t, report=b"")
        part(port, np.zeros(self.state_dim, np.float32))


class EachPullHasItsRate(Check):
    """Also when several nodes pull the same v."""

    nodes = 3

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record(rates=(1.0, 0.5, 0.25))
        assert port.assemble(monitor)
        pushes = take(port, 3, np.zeros(self.dim, np.float32), 0, monitor)
        assert sorted(delta[0] for _, delta, _ in pushes) == [0.25, 0.5, 1.0]
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        pulled = port.pull()
        assert pulled is not None
        port.push(np.full(self.dim, pulled.rate_scale, np.float32), since=0, report=b"[]")
        part(port, np.zeros(self.state_dim, np.float32))


class DelayIsStepsOfOthers(Check):
    """Node 0 pushes what it pulled three global steps ago: tau = 3."""

    nodes = 2

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record(stop=lambda record: record.t == 4)
        v = np.zeros(self.dim, np.float32)
        assert port.assemble(monitor)
        assert algorithm_1(v, GlobalStep(1.0, 0.0, self.dim), port, monitor, 1) == 4
        assert [event for event in monitor.events if event[0] == "received"] == [("received", 1)] * 3 + [
            ("received", 0)
        ]
        assert monitor.taus == [0, 0, 0, 3]
        assert (v == 13).all()

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        _, t = pull(port)
        if node == 1:
            for _ in range(3):
                port.push(np.ones(self.dim, np.float32), since=t, report=b"[]")
                _, t = pull(port)
            cues.give(0)
        else:
            cues.take(1)
            port.push(np.full(self.dim, 10, np.float32), since=t, report=b"[]")
        part(port, np.zeros(self.state_dim, np.float32))


class ReportsComeInOrder(Check):
    nodes = 2

    @staticmethod
    def texts(node: int) -> list[bytes]:
        odd = [f'["{node}", {n}, "\u00fc\u4e2d\\n"]'.encode() for n in range(20)]
        return [*odd, b"[]", bytes(range(256)), b"x" * 1_000_000, f'["last of {node}"]'.encode()]

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        take(port, 2, np.zeros(self.dim, np.float32), 0, monitor)
        for node in range(2):
            assert [text for source, text in monitor.texts if source == node] == self.texts(node)
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        *told, last = self.texts(node)
        port.tell(told[0])  # before the first pull, as a node says that it is ready
        pull(port)
        for text in told[1:]:
            port.tell(text)
        port.push(np.zeros(self.dim, np.float32), since=0, report=last)
        part(port, np.zeros(self.state_dim, np.float32))


class StateComesBeforeItsPush(Check):
    """So that v and the states in a checkpoint belong together."""

    nodes = 2

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        for push in port.collect(2, serving=bits(0, self.dim), t=0, monitor=monitor):
            monitor.received(push, 0)
            assert same(monitor.states[push.node], delta(10 + push.node, self.state_dim))
        for node in range(2):
            assert [event for event in monitor.events if event[1] == node] == [("kept", node), ("received", node)]
        dismiss(port, monitor)
        assert all(same(monitor.states[node], delta(20 + node, self.state_dim)) for node in range(2))

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        pull(port)
        state = delta(10 + node, self.state_dim)
        port.keep(state)
        state[:] = 0
        port.push(delta(0, self.dim), since=0, report=b"")
        part(port, delta(20 + node, self.state_dim))


class PullIsAnsweredAtOnce(Check):
    """M = 2 and one node: its second pull gets the v of the first, since the master waits for one more delta."""

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        pushes = take(port, 2, bits(1, self.dim), 5, monitor)
        assert [(node, since) for node, _, since in pushes] == [(0, 5), (0, 5)]
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        for _ in range(2):
            v, t = pull(port)
            assert same(v, bits(1, self.dim))
            port.push(delta(1, self.dim), since=t, report=b"")
        part(port, np.zeros(self.state_dim, np.float32))


class AssembleWaitsForAll(Check):
    nodes = 2

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        assert monitor.texts == [(1, b'["late"]')]
        waits_s = {w.node: w.waited_s for w in port.collect(2, serving=bits(0, self.dim), t=0, monitor=monitor)}
        assert waits_s[0] > waits_s[1] > 0
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        if node == 0:
            cues.give(1)
        else:
            cues.take(0)
            time.sleep(0.2)
            port.tell(b'["late"]')
        pull(port)
        port.push(np.zeros(self.dim, np.float32), since=0, report=b"")
        part(port, np.zeros(self.state_dim, np.float32))


class MasterIsBusyWhenItDoesNotWaitForMessages(Check):
    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        monitor.slept_s = 0.0
        began_at = time.monotonic()
        take(port, 1, bits(0, self.dim), 0, monitor)
        took_s = time.monotonic() - began_at
        assert 0.25 < monitor.slept_s <= took_s, "the node takes 0.3 s"
        slept_s = monitor.slept_s
        cues.take(0)
        time.sleep(0.3)  # the next one is on its way, and the master elsewhere
        for _ in port.collect(1, serving=bits(0, self.dim), t=1, monitor=monitor):
            time.sleep(0.3)
        assert monitor.slept_s - slept_s < 0.2
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        _, t = pull(port)
        time.sleep(0.3)
        port.push(np.zeros(self.dim, np.float32), since=t, report=b"")
        cues.give(MASTER)
        port.push(np.zeros(self.dim, np.float32), since=t, report=b"")
        part(port, np.zeros(self.state_dim, np.float32))


class PushTellsHowLongTheExchangeBeforeTook(Check):
    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        waits_s = []
        for t in range(2):
            for w in port.collect(1, serving=bits(0, self.dim), t=t, monitor=monitor):
                waits_s.append(w.waited_s)
                time.sleep(0.3)  # nobody answers the pull meanwhile
        assert waits_s[1] > 0.25
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        for _ in range(2):
            _, t = pull(port)
            port.push(np.zeros(self.dim, np.float32), since=t, report=b"")
        part(port, np.zeros(self.state_dim, np.float32))


class AssembleEndsWhenMonitorSaysStop(Check):
    nodes = 2

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record(stop=lambda record: bool(record.texts))
        assert not port.assemble(monitor)
        assert dismiss(port, monitor) == []
        assert sorted(monitor.states) == [0, 1]

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        if node == 0:
            port.tell(b"[]")
        part(port, np.zeros(self.state_dim, np.float32))


class CollectEndsWhenMonitorSaysStop(Check):
    nodes = 2

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record(stop=lambda record: record.deltas == 1)
        assert port.assemble(monitor)
        for push in port.collect(5, serving=bits(0, self.dim), t=0, monitor=monitor):
            monitor.received(push, 0)
        assert monitor.deltas == 1
        assert dismiss(port) == []

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        _, t = pull(port)
        if node == 0:
            port.push(delta(0, self.dim), since=t, report=b"")
        part(port, np.zeros(self.state_dim, np.float32))


class DrainLosesNothing(Check):
    """The master stops while node 1 is in the middle of its updates and node 2 is about to pull."""

    nodes = 3

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record(stop=lambda record: record.deltas == 1)
        assert port.assemble(monitor)
        for push in port.collect(3, serving=bits(0, self.dim), t=8, monitor=monitor):
            assert push.node == 0
            monitor.received(push, 0)
        cues.give(2)
        ((node, w, since),) = dismiss(port, monitor)
        assert (node, since) == (1, 8)
        assert same(w, delta(11, self.dim))
        assert (1, b'["late"]') in monitor.texts
        assert sorted(monitor.states) == [0, 1, 2]
        assert all(same(state, delta(20 + node, self.state_dim)) for node, state in monitor.states.items())

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        v, t = pull(port)
        assert not (node == 0 and port.stopping())
        if node == 0:
            port.push(delta(0, self.dim), since=t, report=b"")
            wait_until(port.stopping, "stop")
        elif node == 1:
            wait_until(port.stopping, "stop")
            assert port.stopping()  # and so it stays
            assert same(v, bits(0, self.dim))  # it is still needed: w = u - v
            port.push(delta(11, self.dim), since=t, report=b'["late"]')
        else:
            cues.take(MASTER)
        assert port.pull() is None
        assert port.stopping()
        port.leave(delta(20 + node, self.state_dim))


class FailedNodeIsLeftOut(Check):
    """The others' deltas are enough then."""

    nodes = 3

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        assert port.quorum(3) == 3
        pushes = take(port, 3, np.zeros(self.dim, np.float32), 0, monitor)
        assert sorted(node for node, _, _ in pushes) == [0, 2]
        assert port.quorum(3) == 2
        assert port.quorum(1) == 1
        ((node, why),) = monitor.losses
        assert node == 1
        assert why.startswith("failed\nTraceback")
        assert why.endswith("\u00fc\u4e2d")
        assert dismiss(port) == []

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        pull(port)
        if node == 1:
            port.fail("failed\nTraceback: \udcff \u00fc\u4e2d")  # file names may hold what is not text
        else:
            port.push(np.ones(self.dim, np.float32), since=0, report=b"")
            part(port, np.zeros(self.state_dim, np.float32))


class FailureOfTheLastNodeIsTheEnd(Check):
    nodes = 2

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        with refused(NodeError, "node ", ": failed"):
            take(port, 2, np.zeros(self.dim, np.float32), 0, monitor)
        assert len(monitor.losses) == 1

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        pull(port)
        port.fail("failed")


class DeltasThatAreNotFiniteAreRefused(Check):
    nodes = 2
    limits = Limits(start_s=LIMIT_S, silence_s=LIMIT_S, refusals=3)

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        assert [node for node, _, _ in take(port, 2, np.zeros(self.dim, np.float32), 0, monitor)] == [0, 0]
        assert monitor.refusals == [0, 0]
        assert (0, b'["also"]') in monitor.texts
        cues.give(1)
        with refused(NodeError, "node 1: 3 deltas in a row are not finite"):
            take(port, 1, np.zeros(self.dim, np.float32), 0, monitor)
        cues.give(0)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        pull(port)
        good, bad = np.ones(self.dim, np.float32), np.ones(self.dim, np.float32)
        bad[node] = (np.nan, np.inf)[node]
        if node == 0:
            for delta in (bad, good, bad, good):
                port.push(delta, since=0, report=b'["also"]')
        cues.take(MASTER)
        if node == 1:
            for _ in range(3):
                port.push(bad, since=0, report=b"")


class EncodedDeltasThatAreNotFiniteAreRefused(DeltasThatAreNotFiniteAreRefused):
    encoding = Encoding.BFLOAT16


class DeltasAreEncoded(Check):
    """What arrives is what the codec makes of w, and the second delta brings what rounding took from the first."""

    encoding = Encoding.INT8
    nodes = 2
    dim = 3 * BLOCK + 1

    def delta(self, node: int) -> Vector:
        return np.random.default_rng(node).standard_normal(self.dim).astype(np.float32)

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        pushes = list(take(port, 4, np.zeros(self.dim, np.float32), 0, monitor))
        for node in range(2):
            first, second = [w for source, w, _ in pushes if source == node]
            assert same(first, encode(self.delta(node), self.encoding).decode())
            left = self.delta(node) - first
            assert 0 < np.abs(left).max() < 0.02
            assert same(second, encode(left + self.delta(node), self.encoding).decode())
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        pull(port)
        w = self.delta(node)
        port.push(w, since=0, report=b"[]")
        port.push(w, since=0, report=b"[]")
        assert same(w, self.delta(node)), "it is the node's"
        part(port, np.zeros(self.state_dim, np.float32))


class DeltasAreEncodedAsBfloat16(DeltasAreEncoded):
    encoding = Encoding.BFLOAT16


class BytesAreCounted(Check):
    """A node's second v is what is new in it, its third nothing at all."""

    only = "mpi"
    encoding = Encoding.BFLOAT16
    dim = BLOCK

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        v, header = np.ones(self.dim, np.float32), 64
        found = []
        for t in (7, 8, 8):
            found += [(w.delta_bytes, w.v_bytes) for w in port.collect(1, serving=v, t=t, monitor=monitor)]
            if t == 7:
                v += 1e-3
        encoded = header + 2 * self.dim
        assert found == [(encoded + 2, header + 4 * self.dim), (encoded + 2, encoded), (encoded + 2, header)]
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        for expected in (1.0, 1.001, 1.001):
            v, t = pull(port)
            np.testing.assert_allclose(v, expected, rtol=1e-6)
            port.push(np.ones(self.dim, np.float32), since=t, report=b"[]")
        part(port, np.zeros(self.state_dim, np.float32))


class FailureReachesTheMasterAtTheStart(Check):
    nodes = 2

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        with refused(NodeError, "node 1: ", "the end says most"):
            port.assemble(Record())

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        if node == 1:
            port.fail("x" * 5_000_000 + "the end says most")


class FailureReachesTheMasterAtTheEnd(Check):
    nodes = 2

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        with refused(NodeError, "node 0: too late"):
            dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        wait_until(port.stopping, "stop")
        if node == 0:
            port.fail("too late")


class SilentNodeIsNotWaitedFor(Check):
    """Node 0 is silent, though node 1 is heard all the time; when it is heard again, it counts again."""

    nodes = 2
    limits = Limits(start_s=LIMIT_S, silence_s=LIMIT_S, absence_s=0.6)  # 1 s in messages

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        assert [node for node, _, _ in take(port, 2, np.zeros(self.dim, np.float32), 0, monitor)] == [1]
        assert monitor.losses == [(0, "silent for 1 s")]
        assert monitor.returns == []
        cues.give(0)
        ((node, _, since),) = take(port, 1, np.zeros(self.dim, np.float32), 5, monitor)
        assert (node, since) == (0, 0)
        assert monitor.returns == [(0, "is heard again")]
        assert port.quorum(2) == 2
        dismiss(port)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        pull(port)
        if node == 1:
            for _ in range(40):
                port.tell(b"[]")
                time.sleep(0.02)
        else:
            cues.take(MASTER)
        port.push(np.zeros(self.dim, np.float32), since=0, report=b"")
        part(port, np.zeros(self.state_dim, np.float32))


class SilenceOfAllIsTheEnd(Check):
    limits = Limits(start_s=LIMIT_S, silence_s=0.6, absence_s=0.1)  # 1 s in messages

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        with refused(TransportError, "node 0: silent for ", "(limit 1 s)"):
            take(port, 1, np.zeros(self.dim, np.float32), 0, monitor)
        cues.give(0)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        pull(port)
        cues.take(MASTER)


class NodeThatNeverComesIsNamed(Check):
    """The master's patience at the start ends, and that of the node that came."""

    nodes = 2
    limits = Limits(start_s=0.6, silence_s=LIMIT_S)

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        with refused(TransportError, "node 0: silent for ", "(limit 1 s)"):
            port.assemble(Record())

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        if node == 1:
            with refused(TransportError, "node 1: no reply from the master in 1 s (pull, last t=None)"):
                port.pull()


class MasterThatDoesNotAnswerIsNoticed(Check):
    limits = Limits(start_s=LIMIT_S, silence_s=0.6)  # 1 s in messages

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        take(port, 1, np.zeros(self.dim, np.float32), 412, monitor)
        cues.take(0)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        v, t = pull(port)
        port.push(v, since=t, report=b"")
        with refused(TransportError, "node 0: no reply from the master in 1 s (pull, last t=412)"):
            port.pull()
        cues.give(MASTER)


class StoppedNodeGoesOn(Check):
    """A node is stopped while it waits, for longer than it would wait: it hears the master after that."""

    only = "mpi"
    limits = Limits(start_s=LIMIT_S, silence_s=3.0)

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        take(port, 1, np.zeros(self.dim, np.float32), 412, monitor)
        cues.take(0)
        time.sleep(3.6)
        assert dismiss(port) == []

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        v, t = pull(port)
        port.push(v, since=t, report=b"")
        cues.give(MASTER)
        stop = f"sleep 0.2; kill -STOP {os.getpid()}; sleep 3.2; kill -CONT {os.getpid()}"
        with subprocess.Popen(["sh", "-c", stop]) as stopping:
            began_at = time.monotonic()
            assert port.pull() is None
            assert time.monotonic() - began_at > self.limits.silence_s
            assert stopping.wait(LIMIT_S) == 0
        port.leave(np.zeros(self.state_dim, np.float32))


class OtherRunIsRefused(Check):
    only = "mpi"
    foreign = True

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        with refused(TransportError, "node 0: a message of another run or version"):
            port.assemble(Record())

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        port.tell(b"[]")


class OtherSizeIsRefused(Check):
    only = "mpi"
    node_dim = 6

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record()
        assert port.assemble(monitor)
        with refused(TransportError, "node 0: PUSH with 6 numbers, must be 5"):
            take(port, 1, np.zeros(self.dim, np.float32), 0, monitor)

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        with refused(TransportError, "node 0: v has 5 numbers, must be 6"):
            port.pull()
        port.push(np.zeros(6, np.float32), since=0, report=b"")


class OtherSizeIsRefusedThoughEncoded(OtherSizeIsRefused):
    encoding = Encoding.BFLOAT16


class NumpyPool(Pool):
    """SGD on f(u) = |u - target|^2 / 2; the state is the number of updates."""

    def __init__(self, target: Vector, eta: float) -> None:
        self._target, self._eta = target, np.float32(eta)
        self._reports: list[dict[str, int]] = []
        self._state = np.zeros(1, np.float32)

    def run(self, v: Vector, B: int, *, rate_scale: float, listener: Listener) -> Vector:
        u, b = v.copy(), 0
        while b < B and not listener.stopping():
            u -= self._eta * np.float32(rate_scale) * (u - self._target)
            b += 1
        self._reports.append({"updates": b})
        self._state += b
        listener.keep(self._state)
        return u

    def report(self) -> bytes:
        reports, self._reports = self._reports, []
        return json.dumps(reports).encode()

    def state(self) -> Vector:
        return self._state


class OneNodeIsSerialSGD(Check):
    """Algorithms 1 and 2 together, to the last bit: see `test_algorithms` for why v + (u - v) is u here."""

    B = 7
    state_dim = 1
    start: ClassVar[Vector] = np.array([1.0, 1.1, 1.2, 1.3, 1.5], np.float32)
    target: ClassVar[Vector] = np.array([1.25, 1.0, 1.5, 1.2, 1.0], np.float32)

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record(stop=lambda record: record.t >= 10)
        v = self.start.copy()
        assert port.assemble(monitor)
        assert algorithm_1(v, GlobalStep(1.0, 0.0, v.size), port, monitor, 1) == 10
        assert [report["updates"] for report in monitor.reports()] == [self.B] * 10
        assert monitor.taus == [0] * 10
        u = self.start.copy()
        for _ in range(10 * self.B):
            u -= np.float32(0.05) * (u - self.target)
        assert same(v, u)
        assert monitor.states[0].tolist() == [10 * self.B]

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        algorithm_2(port, NumpyPool(self.target, 0.05), self.B)


class TwoMastersMakeTheSame(OneNodeIsSerialSGD):
    """The same with v in two slices, each large enough to go another way than small messages."""

    only = "mpi"
    masters = 2
    dim = 700_001
    start: ClassVar[Vector] = np.resize(OneNodeIsSerialSGD.start, 700_001)
    target: ClassVar[Vector] = np.resize(OneNodeIsSerialSGD.target, 700_001)
    links: Sequence[MasterLink] = ()

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Leading(stop=lambda record: record.t >= 10)
        z = np.zeros(self.dim, np.float32)
        monitor.followers = Followers(self.links, v=self.start.copy(), z=z, t=0, limits=self.limits)
        assert port.assemble(monitor)
        v = monitor.followers.own_v
        assert algorithm_1(v, GlobalStep(1.0, 0.0, v.size), port, monitor, 1) == 10
        monitor.followers.gather_last()
        assert monitor.followers.dismiss(port.unscathed)
        u = self.start.copy()
        for _ in range(10 * self.B):
            u -= np.float32(0.05) * (u - self.target)
        assert same(monitor.followers.v, u)
        assert monitor.gathered, "in the middle of the run too"
        assert monitor.states[0].tolist() == [10 * self.B]


class SeveralNodesConverge(Check):
    """M = 2 of 3 nodes, momentum, a falling rate: nobody waits for anybody."""

    nodes = 3
    state_dim = 1
    target: ClassVar[Vector] = np.array([1.0, -2.0, 0.5, -0.5, 0.25], np.float32)

    def master(self, port: BaseMasterPort, cues: Cues) -> None:
        monitor = Record(stop=lambda record: record.t >= 150, rates=tuple(np.linspace(1, 0.1, 250).tolist()))
        v = np.zeros(self.dim, np.float32)
        assert port.assemble(monitor)
        t = algorithm_1(v, GlobalStep(constant_factor_rho(2, 0.5), 0.5, v.size), port, monitor, 2)
        assert t in (150, 151)
        np.testing.assert_allclose(v, self.target, atol=1e-4)
        assert 300 <= monitor.deltas <= 303
        assert min(monitor.taus) >= 0
        updates = sum(report["updates"] for report in monitor.reports())
        assert 300 * 3 <= updates <= 303 * 3
        assert sorted(monitor.states) == [0, 1, 2]
        assert sum(float(state[0]) for state in monitor.states.values()) == updates

    def node(self, node: int, port: BaseWorkerPort, cues: Cues) -> None:
        algorithm_2(port, NumpyPool(self.target, 0.1), B=3)


class SeveralNodesConvergeWithRoundedDeltas(SeveralNodesConverge):
    encoding = Encoding.INT8


def checks(transport: str) -> dict[str, type[Check]]:
    """By name, those that a transport has to pass."""
    found: dict[str, type[Check]] = {}
    waiting = list(Check.__subclasses__())
    while waiting:
        check = waiting.pop(0)
        waiting += check.__subclasses__()
        if check.only in (None, transport):
            found[check.__name__] = check
    return found
