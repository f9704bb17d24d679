"""Several masters over queues: a node's port to all of them, what they say to each other, and that v is what one master
makes of it.
"""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import Pulled, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.worker import worker
from hsa2c.errors import ConfigError, HSA2CError, TransportError
from hsa2c.node.layout import DenseLayout
from hsa2c.node.optimiser import Rule
from hsa2c.node.serial import SerialPool
from hsa2c.transport.inprocess import QueueMaster, connect
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.messages import Kind, Limits, Message
from hsa2c.transport.several_masters import FollowerMonitor, Followers, ShardedWorkerPort, follow, parts
from tests.dpsgd.problems import quadratic
from tests.dpsgd.waiting import LIMIT_S, wait_until
from tests.transport.conformance import Check, checks
from tests.transport.links import Leading, QueueLink, linked
from tests.transport.test_conformance import play

LIMITS = Limits(start_s=LIMIT_S, silence_s=LIMIT_S)


# Slices


@given(st.integers(1, 50), st.integers(1, 50))
def test_parts_are_the_whole_in_order(dim: int, masters: int) -> None:
    if masters > dim:
        with pytest.raises(ConfigError, match=rf"^cluster.masters = {masters}: v has {dim} numbers, must be at most"):
            parts(dim, masters)
        return
    slices = parts(dim, masters)
    assert np.concatenate([np.arange(dim)[part] for part in slices]).tolist() == list(range(dim))
    sizes = [part.stop - part.start for part in slices]
    assert len(sizes) == masters
    assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1


# A node's port keeps every rule of a port. Its masters are joined to one, so that the same checks can be played.

_APART = 7  # global steps by which each master is ahead of the one before it


class JoinedMaster(BaseMasterPort):
    """K masters' ends that say the same at the same time; what a node says to all of them comes as one message."""

    def __init__(self, ports: list[QueueMaster], nodes: int, dim: int, limits: Limits) -> None:
        super().__init__(nodes, limits)
        self._ports = ports
        self._parts = parts(dim, len(ports))
        self._said = {node: [deque[Message]() for _ in ports] for node in range(nodes)}

    def _receive(self) -> Message | None:
        for k, port in enumerate(self._ports):
            if (message := port._receive()) is not None:
                self._said[message.node][k].append(message)
            self._slept_s, port._slept_s = self._slept_s + port._slept_s, 0.0
        for said in self._said.values():
            if said[0] and said[0][0].kind is Kind.KEEP:
                return said[0].popleft()
            if all(said):
                return self._join([queue.popleft() for queue in said])
        return None

    @staticmethod
    def _join(messages: list[Message]) -> Message:
        lead, *others = messages
        assert all(other.kind is lead.kind for other in others)
        if lead.kind is Kind.PUSH:
            assert [other.since for other in others] == [lead.since + _APART * k for k in range(1, len(messages))]
            assert all(other.text == b"" for other in others)
            return replace(lead, vector=np.concatenate([message.vector for message in messages]))
        if lead.kind is Kind.FAIL:
            assert all(other.text == lead.text for other in others)
        elif lead.kind is Kind.LEAVE:
            assert all(other.vector is not None and other.vector.size == 0 for other in others)
        else:
            assert all((other.vector, other.text) == (None, b"") for other in others)
        return lead

    def _answer(self, node: int, pulled: Pulled | None) -> None:
        for k, (port, part) in enumerate(zip(self._ports, self._parts, strict=True)):
            one = pulled and Pulled(pulled.v[part], pulled.t + _APART * k, pulled.rate_scale if k == 0 else -1.0)
            port._answer(node, one)

    def _say_stop(self) -> None:
        for port in self._ports:
            port._say_stop()


@pytest.mark.timeout(100)
@pytest.mark.parametrize("name", checks("queues"))
def test_conformance(name: str) -> None:
    check: Check = checks("queues")[name]()
    pairs = [connect(check.nodes, check.limits, check.encoding) for _ in range(3)]
    for port, _ in pairs:
        port.tick_s = 0.002  # one thread listens to all
    joined = JoinedMaster([port for port, _ in pairs], check.nodes, check.dim, check.limits)
    ports = [ShardedWorkerPort([workers[node] for _, workers in pairs], check.dim) for node in range(check.nodes)]
    failures = play(check, joined, ports)
    assert not failures, "\n".join(failures)


# Algorithms 1 and 2 with several masters


class Cluster:
    """Threads: a lead, followers, nodes. Give it to `with`: all have ended after it, and well."""

    def __init__(self, masters: int, nodes: int, dim: int) -> None:
        self.pairs = [connect(nodes, LIMITS) for _ in range(masters)]
        self.links = [linked(number) for number in range(1, masters)]
        self.failures: list[str] = []
        self.dim = dim
        self.threads: list[threading.Thread] = []

    def start(self, act: Callable[[], object]) -> None:
        def guarded() -> None:
            try:
                act()
            except BaseException:
                self.failures.append(traceback.format_exc())

        self.threads.append(threading.Thread(target=guarded, daemon=True))
        self.threads[-1].start()

    def node(self, node: int) -> ShardedWorkerPort:
        return ShardedWorkerPort([workers[node] for _, workers in self.pairs], self.dim)

    def lead(self, v: Vector, z: Vector) -> Followers:
        return Followers([link for link, _ in self.links], v=v, z=z, t=0, limits=LIMITS)

    def follow(self, make_step: Callable[[int], GlobalStep], M: int) -> None:
        for (_, link), (port, _) in zip(self.links, self.pairs[1:], strict=True):
            self.start(lambda link=link, port=port: follow(link, lambda _: port, make_step, M, limits=LIMITS))

    def end(self) -> None:
        for thread in self.threads:
            thread.join(LIMIT_S)
            assert not thread.is_alive()
        assert not self.failures, "\n".join(self.failures)


START = torch.tensor([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7])


def train(
    masters: int, momentum: float, *, nodes: int = 1, steps: int = 10, rule: str = "adam"
) -> tuple[Vector, Vector, Leading]:
    """The last v and z of a whole run."""
    layout = DenseLayout(START.numel(), Rule(name=rule, learning_rate=0.05))
    cluster = Cluster(masters, nodes, START.numel())
    make_step = lambda size: GlobalStep(0.7 / nodes, momentum, size)
    cluster.follow(make_step, nodes)
    for node in range(nodes):
        pool = SerialPool(quadratic(torch.flip(START, [0]), 1.3), layout)
        cluster.start(lambda node=node, pool=pool: worker(cluster.node(node), pool, 3))
    monitor = Leading(stop=lambda record: record.t >= steps)
    followers = cluster.lead(START.numpy().copy(), np.zeros(START.numel(), np.float32))
    monitor.followers = followers
    step = make_step(followers.own_v.size)
    step.z = followers.own_z
    port = cluster.pairs[0][0]
    assert port.assemble(monitor)
    assert master(followers.own_v, step, port, monitor, nodes) >= steps
    followers.gather_last()
    assert followers.dismiss(True)
    cluster.end()
    return followers.v, followers.z, monitor


@pytest.mark.timeout(60)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_one_node_makes_the_same_v_with_any_number_of_masters(momentum: float) -> None:
    """To the last bit, and the velocity too."""
    v, z, _ = train(1, momentum)
    assert np.any(v != START.numpy())
    assert np.any(z) == (momentum > 0)
    for masters in (2, 3, START.numel()):
        again = train(masters, momentum)
        assert again[0].tobytes() == v.tobytes()
        assert again[1].tobytes() == z.tobytes()


@pytest.mark.timeout(60)
def test_several_nodes_and_masters_converge_and_v_is_gathered_meanwhile() -> None:
    v, _, monitor = train(3, 0.3, nodes=3, steps=200, rule="sgd")
    np.testing.assert_allclose(v, torch.flip(START, [0]).numpy(), atol=0.05)
    assert len(monitor.gathered) > 1
    distance = [float(np.abs(seen - v).max()) for seen in monitor.gathered]
    assert distance[-1] < 0.1 < distance[0], "at the beginning and at the end of the run"


@pytest.mark.timeout(60)
def test_node_leaves_when_it_has_heard_of_the_end_from_all() -> None:
    """Master 1 hears of the end long after the lead; the node has asked both in the meantime."""
    cluster = Cluster(2, 1, 4)
    (_, link), port = cluster.links[0], cluster.pairs[1][0]
    go_on = threading.Event()
    left = threading.Event()

    def late() -> None:
        monitor = FollowerMonitor(link, port, np.zeros(2, np.float32), np.zeros(2, np.float32))
        waits = Leading(stop=lambda _: go_on.is_set())
        waits.stopping = go_on.is_set  # type: ignore[method-assign]
        assert port.assemble(monitor)
        pushes = list(port.collect(2, serving=np.ones(2, np.float32), t=3, monitor=waits))
        assert len(pushes) == 1
        assert list(port.drain(monitor=waits)) == []

    def node() -> None:
        mine = cluster.node(0)
        pulled = mine.pull()
        assert pulled is not None
        mine.push(pulled.v, since=pulled.t, report=b"")
        assert mine.pull() is None
        left.set()
        mine.leave(np.zeros(0, np.float32))

    cluster.start(late)
    cluster.start(node)
    lead = cluster.pairs[0][0]
    monitor = Leading(stop=lambda record: record.deltas == 1)
    monitor.followers = Followers([], v=np.zeros(2, np.float32), z=np.zeros(2, np.float32), t=0, limits=LIMITS)
    assert lead.assemble(monitor)
    for push in lead.collect(5, serving=np.zeros(2, np.float32), t=0, monitor=monitor):
        monitor.received(push, 0)
    cluster.start(lambda: list(lead.drain(monitor=monitor)))
    assert not left.wait(0.3)
    go_on.set()
    cluster.end()
    assert left.is_set()


def test_delta_that_is_not_finite_is_refused_by_all() -> None:
    cluster = Cluster(2, 1, 4)
    cluster.node(0).push(np.array([1, np.inf, 1, 1], np.float32), since=0, report=b"")
    for port, _ in cluster.pairs:
        message = port._receive()
        assert message is not None
        assert message.vector is not None
        assert np.isnan(message.vector).all()


# What masters say to each other


@pytest.fixture
def two() -> tuple[Followers, QueueLink]:
    """The lead's view of one follower that has a slice of 2, and that follower's link."""
    lead, follower = linked(1)
    v = np.arange(4, dtype=np.float32)
    followers = Followers([lead], v=v, z=-v, t=5, limits=Limits(start_s=0.3, silence_s=0.1))
    first = follower.poll()
    assert first is not None
    assert (first.kind, first.since, first.vector.tolist()) == (Kind.SLICE, 5, [2, 3, -2, -3])
    return followers, follower


def attend(followers: Followers, seconds: float = 2.0) -> None:
    wait_until(lambda: followers.attend() is not None, "an error", seconds)


def test_silence_of_a_follower_is_noticed(two: tuple[Followers, QueueLink]) -> None:
    followers, follower = two
    with pytest.raises(TransportError, match=r"^master 1: silent for 0 s \(limit 0 s\)$"):
        attend(followers)
    follower.send(Kind.TELL)
    followers.attend()


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"kind": Kind.FAIL, "text": b"no memory"}, "master 1: no memory"),
        ({"kind": Kind.SLICE, "vector": np.ones(3, np.float32)}, "master 1: SLICE with 3 numbers, must be v and z"),
        ({"kind": Kind.SLICE}, "master 1: SLICE with 0 .*"),
        ({"kind": Kind.LEAVE, "vector": np.ones(6, np.float32)}, "master 1: .* 3 numbers, .* 2"),
        ({"kind": Kind.PUSH, "vector": np.ones(4, np.float32)}, "master 1: PUSH, unasked"),
    ],
)
def test_what_a_follower_must_not_say(two: tuple[Followers, QueueLink], message: dict, error: str) -> None:
    followers, follower = two
    follower.send(**message)
    with pytest.raises(HSA2CError, match=f"^{error}$"):
        followers.attend()


def test_v_is_gathered_whole_or_not_at_all(two: tuple[Followers, QueueLink]) -> None:
    followers, follower = two
    followers.ask()
    followers.ask()
    followers.own_v += 10
    followers.attend()
    assert not followers.gathered()
    assert followers.v.tolist() == [0, 1, 2, 3]
    assert follower.poll().kind is Kind.PULL
    assert follower.poll() is None, "asked once"
    follower.send(Kind.SLICE, vector=np.array([12, 13, 5, 6], np.float32))
    followers.attend()
    assert followers.gathered()
    assert not followers.gathered(), "once"
    assert followers.v.tolist() == [10, 11, 12, 13]
    assert followers.z.tolist() == [0, -1, 5, 6]


def test_the_last_slices_count_whatever_was_on_its_way(two: tuple[Followers, QueueLink]) -> None:
    followers, follower = two
    followers.ask()
    followers.stop()
    followers.stop()
    assert [follower.poll().kind for _ in range(2)] == [Kind.PULL, Kind.STOP]
    assert follower.poll() is None
    follower.send(Kind.SLICE, vector=np.zeros(4, np.float32))
    follower.send(Kind.LEAVE, vector=np.array([7, 8, 9, 10], np.float32), number=0.0)
    followers.gather_last()
    assert (followers.v.tolist(), followers.z.tolist()) == ([0, 1, 7, 8], [0, -1, 9, 10])
    assert not followers.dismiss(True), "a follower has seen a death"
    assert follower.poll().number == 0.0


def test_follower_that_hears_nothing_gives_up() -> None:
    _, link = linked(1)
    with pytest.raises(TransportError, match=r"^no SLICE from the lead in 0 s$"):
        follow(link, lambda _: connect(1)[0], lambda n: GlobalStep(1, 0, n), 1, limits=Limits(start_s=0.05))


def test_lead_must_not_send_anything() -> None:
    lead, link = linked(1)
    monitor = FollowerMonitor(link, connect(1)[0], np.zeros(1, np.float32), np.zeros(1, np.float32))
    assert not monitor.stopping()
    lead.send(Kind.PUSH)
    with pytest.raises(TransportError, match=r"^master 0: PUSH, unasked$"):
        monitor.stopping()


def test_node_that_gives_up_is_left_out_by_every_master() -> None:
    cluster = Cluster(2, 2, 4)
    for node in range(2):
        for port in cluster.node(node).ports:
            port.ask()
    cluster.node(1).fail("no memory")
    for port, _ in cluster.pairs:
        monitor = Leading()
        monitor.stopping = lambda: False  # type: ignore[method-assign]
        assert port.assemble(monitor)
        cluster.node(0).push(np.ones(4, np.float32), since=0, report=b"")
        assert [push.node for push in port.collect(2, serving=np.zeros(2), t=0, monitor=monitor)] == [0]
        assert monitor.losses == [(1, "no memory")]
