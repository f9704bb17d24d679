"""Recorded runs repeated: real ones to the same v, and races that were put into them found and named."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import MasterPort, Monitor, Pulled, Push, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.worker import worker
from hsa2c.node.layout import DenseLayout
from hsa2c.node.optimiser import Rule
from hsa2c.node.process_pool import ProcessPool
from hsa2c.recording.format import HEAD_BYTES, Frame, Kind, Recording, Writer, checksum
from hsa2c.recording.recompute import Nodes, ReplayedPool
from hsa2c.recording.recorder import Monitors, Recorder
from hsa2c.recording.replay import Outcome, replay
from hsa2c.transport.codec import Encoding
from hsa2c.transport.inprocess import connect
from hsa2c.transport.master_port import NOT_FINITE
from hsa2c.transport.messages import Limits
from tests.dpsgd.monitors import Record
from tests.dpsgd.problems import Analytic
from tests.dpsgd.waiting import LIMIT_S
from tests.transport.conformance import same

DIM, B = 40, 3
LIMITS = Limits(start_s=LIMIT_S, silence_s=LIMIT_S)


class AskingLayout(DenseLayout):
    """Needs more of its problem than a gradient, as a layout of an application's own may."""

    def attach(self, u, state, problem):
        assert isinstance(problem, Analytic)
        return super().attach(u, state, problem)


LAYOUT = AskingLayout(DIM, Rule(name="adam", learning_rate=0.05))


def noisy(node: int, *, astray: bool = False, nan_every: int = 10**9) -> Analytic:
    """A quadratic with noise of the node's own.

    Args:
        node: Seed of the noise.
        astray: The 8th gradient is another each time.
        nan_every: One in so many is not finite.
    """
    random = np.random.default_rng(node)
    gradients = iter(range(10**9))

    def formula(u: torch.Tensor) -> torch.Tensor:
        g = u - node + torch.from_numpy(random.standard_normal(DIM).astype(np.float32))
        number = next(gradients)
        if astray and number == 7:
            g[3] += 1 + int.from_bytes(os.urandom(4), "little") / 2**32
        if number % nan_every == nan_every - 1:
            g[5] = np.nan
        return g

    return Analytic(formula)


def new_recorder(path: Path, v: Vector, step: GlobalStep, M: int, **options: Any) -> Recorder:
    given = {"max_delay": None, "t": 0, "encoding": Encoding.FLOAT32, "v_encoding": Encoding.FLOAT32, "about": {}}
    given |= {"limit_bytes": 1e9, "tell": pytest.fail}
    return Recorder(path, v=v, step=step, M=M, **(given | options))


def repeat(path: Path, **options: Any) -> Outcome:
    recording = Recording(path)
    with contextlib.closing(recording):
        return replay(recording, **options)


def run(
    path: Path,
    *,
    steps: int = 12,
    M: int = 2,
    mu: float = 0.5,
    encoding: Encoding = Encoding.FLOAT32,
    make: Callable[[int], Analytic] = noisy,
    race: Callable[[MasterPort, Monitor], tuple[MasterPort, Monitor]] = lambda port, monitor: (port, monitor),
    pool_state: Vector | None = None,
) -> Vector:
    """Two nodes of one process each, that stop for an exchange, recorded; gives back the last v."""
    v, step = np.linspace(-1, 1, DIM, dtype=np.float32), GlobalStep(0.5 / M, mu, DIM)
    step.z[:] = 0.1
    port, worker_ports = connect(2, LIMITS, encoding)
    states = () if pool_state is None else (pool_state,)
    recorder = new_recorder(path, v, step, M, max_delay=2, encoding=encoding, states=states)
    monitor = Record(stop=lambda record: record.t >= steps, rates=(1.0, 0.9, 0.8, 0.7))
    pools = [ProcessPool(lambda _, node=node: make(node), LAYOUT, 1, state=pool_state) for node in range(2)]

    def node(k: int) -> None:
        pools[k].wait_ready()
        worker_ports[k].tell(json.dumps([{"ready": {"actor_learners": pools[k].pids}}]).encode())
        worker(worker_ports[k], pools[k], B)

    threads = [threading.Thread(target=node, args=(k,), daemon=True) for k in range(2)]
    try:
        for thread in threads:
            thread.start()
        seen_port, seen_monitor = race(*recorder.around(port, monitor))
        assert seen_port.assemble(seen_monitor)
        master(v, step, seen_port, seen_monitor, M, max_delay=2)
        recorder.close("enough")
        for thread in threads:
            thread.join(LIMIT_S)
    finally:
        for pool in pools:
            pool.close()
    return v


def nodes(make: Callable[[int], Analytic] = noisy, encoding: Encoding = Encoding.FLOAT32) -> Nodes:
    return Nodes(lambda node, said, state: ReplayedPool(make(node), LAYOUT, state=state), B, encoding=encoding)


@pytest.mark.parametrize(("M", "encoding"), [(1, Encoding.FLOAT32), (2, Encoding.FLOAT32), (2, Encoding.INT8)])
def test_a_run_repeated_is_the_run(tmp_path, M, encoding):
    """The arrivals are as the threads had it; each delta is computed anew as well, from the v that its node saw."""
    path = tmp_path / "r.bin"
    state = np.random.default_rng(5).random(LAYOUT.state_size, np.float32)
    v = run(path, M=M, encoding=encoding, pool_state=state)
    at = []
    outcome = repeat(path, nodes=nodes(encoding=encoding), look=lambda t, v, z: at.append(t))
    assert outcome.difference is None
    assert same(outcome.v, v)
    assert (outcome.t, outcome.steps, at) == (at[-1], len(at), list(range(1, len(at) + 1)))
    assert outcome.steps >= 12
    assert outcome.recomputed == outcome.deltas >= 12 * M
    assert (outcome.nodes, outcome.given_up, outcome.cut, outcome.last_word) == ({0, 1}, {}, False, "enough")


def test_gradients_that_a_node_refused_are_refused_again(tmp_path):
    make = lambda node: noisy(node, nan_every=5)
    v = run(tmp_path / "r.bin", make=make)
    outcome = repeat(tmp_path / "r.bin", nodes=nodes(make))
    assert (outcome.difference, outcome.recomputed) == (None, outcome.deltas)
    assert np.isfinite(v).all()


class Scripted(MasterPort):
    """Deltas, quorums and refusals as listed: all that a transport may do to a master."""

    def __init__(self, script: list[tuple[int, int, bool]], late: int) -> None:
        self._script = iter(enumerate(script[: len(script) - late]))
        self._late = script[len(script) - late :]
        self._quorum = 1
        self._t = 0

    def assemble(self, monitor: Monitor) -> bool:
        return True

    def collect(self, M: int, *, serving: Vector, t: int, monitor: Monitor) -> Iterator[Push]:
        self._t = t
        collected = 0
        while collected < self._quorum:
            number, (node, quorum, good) = next(self._script, (None, (0, 99, True)))
            self._quorum = quorum  # a node was lost, or is back
            if number is None:
                return
            monitor.answered(node, Pulled(serving, t, 1.0), t - 1)
            if not good:
                monitor.refused(node, NOT_FINITE)
                continue
            collected += 1
            yield self._push(node, number)

    def quorum(self, M: int) -> int:
        return self._quorum

    def drain(self, *, monitor: Monitor) -> Iterator[Push]:
        for number, (node, quorum, good) in enumerate(self._late, start=1000):
            self._quorum = quorum
            if good:
                yield self._push(node, number)

    def _push(self, node: int, number: int) -> Push:
        delta = np.random.default_rng(number).standard_normal(5).astype(np.float32)
        return Push(node, delta, max(0, self._t - number % 4))


@settings(max_examples=40, deadline=None)
@given(
    script=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from([True, True, False])), max_size=25),
    late=st.integers(0, 5),
    M=st.integers(1, 4),
    mu=st.sampled_from([0.0, 0.5]),
    max_delay=st.sampled_from([None, 1, 2]),
    mean_of=st.sampled_from([None, 4]),
    t=st.integers(0, 1000),
)
def test_whatever_reached_the_master_a_repetition_is_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    script: list[tuple[int, int, bool]],
    late: int,
    M: int,
    mu: float,
    max_delay: int | None,
    mean_of: int | None,
    t: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "scripted.bin"
    v, step = np.linspace(-1, 1, 5, dtype=np.float32), GlobalStep(0.3, mu, 5, mean_of=mean_of)
    recorder = new_recorder(path, v, step, M, max_delay=max_delay, t=t)
    monitor = Record()
    end = master(
        v, step, *recorder.around(Scripted(script, min(late, len(script))), monitor), M, max_delay=max_delay, t=t
    )
    recorder.close("")
    seen = []
    outcome = repeat(path, look=lambda t, v, z: seen.append(v.copy()))
    assert outcome.difference is None
    assert (outcome.t, outcome.deltas, outcome.cut) == (end, monitor.deltas, False)
    assert outcome.refused == len(monitor.refusals)
    assert len(seen) == len(monitor.vs)
    assert all(same(a, b) for a, b in zip(seen, monitor.vs, strict=True))
    assert same(outcome.v, v)


# Races, and what else should not be


def frames_of(path: Path) -> list[tuple[int, Frame]]:
    """Where each frame begins, and the frame; after v and z."""
    recording, found = Recording(path), []
    with contextlib.closing(recording):
        at = recording.offset
        for frame in recording.frames():
            found.append((at, frame))
            at = recording.offset
    return found


def forge(path: Path, number: int, bit: int, *, seal: bool) -> tuple[Frame, Frame]:
    """Turn one bit of the number-th delta over; seal: with a checksum that is right. The delta, and its step."""
    content = bytearray(path.read_bytes())
    found = frames_of(path)
    at, frame = [entry for entry in found if entry[1].kind is Kind.DELTA][number]
    step = next(f for where, f in found if where > at and f.kind is Kind.STEP)
    content[at + HEAD_BYTES + bit // 8] ^= 1 << bit % 8
    if seal:
        payload = bytes(content[at + HEAD_BYTES : at + HEAD_BYTES + 4 * DIM])
        writer = Writer(path.with_name("sealed.bin"), 1e9)
        start = writer.size
        writer.write(dataclasses.replace(frame, payload=payload))
        writer.close()
        content[at : at + HEAD_BYTES] = path.with_name("sealed.bin").read_bytes()[start : start + HEAD_BYTES]
    path.write_bytes(content)
    return frame, step


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "r.bin"
    run(path)
    return path


@pytest.fixture
def copy(recorded, tmp_path):
    (tmp_path / "r.bin").write_bytes(recorded.read_bytes())
    return tmp_path / "r.bin"


def test_one_flipped_bit_of_a_recorded_delta_is_named(copy):
    frame, step = forge(copy, 9, 70, seal=False)
    outcome = repeat(copy)
    assert outcome.difference.startswith(
        f"step {step.t}: the delta of node {frame.node} at the v of step {frame.since}"
    )
    assert "another checksum than when it came" in outcome.difference
    assert outcome.t == step.t - 1


def test_a_wrong_delta_shows_in_v_and_computing_it_anew_names_it(copy):
    frame, step = forge(copy, 9, 70, seal=True)
    assert repeat(copy).difference == f"step {step.t}: v is not what it was after the sum of {step.count} deltas"
    difference = repeat(copy, nodes=nodes()).difference
    assert difference.startswith(
        f"step {step.t}: the delta of node {frame.node} at the v of step {frame.since}, computed anew, is another:"
        f" 1 of {DIM} numbers, by at most"
    )


def test_chance_in_a_nodes_own_work_is_named(tmp_path):
    make = lambda node: noisy(node, astray=node == 1)
    run(tmp_path / "r.bin", make=make, steps=40)
    assert repeat(tmp_path / "r.bin").difference is None  # the master did nothing wrong
    outcome = repeat(tmp_path / "r.bin", nodes=nodes(make))
    assert "the delta of node 1 at the v of step" in outcome.difference
    assert f"computed anew, is another: 1 of {DIM} numbers" in outcome.difference  # in Adam only that one is touched
    third = [f for _, f in frames_of(tmp_path / "r.bin") if f.kind is Kind.DELTA and f.node == 1][2]  # the 8th gradient
    assert outcome.difference.startswith(f"step {third.t + 1}: ")


def test_a_delta_that_is_overwritten_while_it_is_added_is_named(tmp_path):
    """As if a transport used its buffer for the next message too soon."""

    class Hasty(MasterPort):
        def __init__(self, port):
            self._port = port
            self.assemble, self.quorum, self.drain = port.assemble, port.quorum, port.drain

        def collect(self, M, *, serving, t, monitor):
            for number, push in enumerate(self._port.collect(M, serving=serving, t=t, monitor=monitor)):
                if (t, number) == (5, 1):
                    push.delta[17] *= 2
                yield push

    run(tmp_path / "r.bin", race=lambda port, monitor: (Hasty(port), monitor))
    difference = repeat(tmp_path / "r.bin").difference
    assert difference.startswith("step 6: the delta of node ")
    assert difference.endswith("number 2 of the step, was overwritten between its arrival and the end of its addition")


def test_a_v_that_somebody_else_writes_into_is_named(tmp_path):
    """Between two steps, as if a node had v itself and not a copy."""
    own = {}

    class Writing(Record):
        def answered(self, node, pulled, has):
            own["v"] = pulled.v

        def received(self, push, tau):
            self.taus.append(tau)
            if len(self.taus) == 9:
                own["v"][11] += 1e-6

    def race(port, monitor):
        return port, Monitors(Writing(), monitor)

    run(tmp_path / "r.bin", race=race)
    assert repeat(tmp_path / "r.bin").difference == "step 5: v is not what it was after the sum of 2 deltas"


def test_a_look_that_finds_something_ends_the_repetition(copy):
    outcome = repeat(copy, look=lambda t, v, z: "v is not that of a checkpoint" if t == 4 else None)
    assert (outcome.difference, outcome.t) == ("after step 4: v is not that of a checkpoint", 4)


@pytest.mark.parametrize("torn", ["between two frames", "in a head", "in a delta"])
def test_a_recording_without_an_end_is_repeated_as_far_as_it_goes(copy, torn):
    found = frames_of(copy)
    at, step = [entry for entry in found if entry[1].kind is Kind.STEP][6]
    delta_at = next(where for where, frame in found if where > at and frame.kind is Kind.DELTA)
    step_end = at + HEAD_BYTES + len(step.payload)
    cut = {"between two frames": step_end, "in a head": step_end + 9, "in a delta": delta_at + HEAD_BYTES + 20}[torn]
    copy.write_bytes(copy.read_bytes()[:cut])
    outcome = repeat(copy, nodes=nodes())
    assert (outcome.difference, outcome.cut, outcome.t, outcome.last_word) == (None, True, step.t, "")
    assert outcome.recomputed == outcome.deltas == sum(f.kind is Kind.DELTA for where, f in found if where < at)


def test_a_head_that_is_damaged_is_a_difference(copy):
    content = bytearray(copy.read_bytes())
    at, step = [entry for entry in frames_of(copy) if entry[1].kind is Kind.STEP][3]
    content[at + 9] ^= 4
    copy.write_bytes(content)
    assert repeat(copy).difference == f"after step {step.t - 1}: the recording is damaged at byte {at:,}"


def test_a_node_that_is_another_process_later_is_no_longer_computed_anew(tmp_path):
    path, v = tmp_path / "r.bin", np.zeros(DIM, np.float32)
    recorder = new_recorder(path, v, GlobalStep(1.0, 0.0, DIM), 1)
    pool = ReplayedPool(noisy(0), LAYOUT)
    for t, has in enumerate((-1, 0, -1, 2)):
        recorder.answered(0, Pulled(v.copy(), t, 1.0), has)
        if t == 2:
            pool = ReplayedPool(noisy(9), LAYOUT)  # what a process that begins anew does is not known
        push = Push(0, pool.run(v, B, rate_scale=1.0, listener=Always()) - v, t)
        recorder.arrived(push)
        recorder.received(push, 0)
        recorder.quorum(1)
        v += push.delta
        recorder.stepped(t + 1, v)
    recorder.close("")
    outcome = repeat(path, nodes=nodes())
    assert (outcome.difference, outcome.recomputed, outcome.deltas) == (None, 2, 4)
    assert outcome.given_up == {0: "another process was node 0 from step 3 on"}


def test_a_delta_that_was_refused_must_not_be_finite_when_computed_anew(tmp_path):
    for bad in (False, True):
        path, v = tmp_path / "r.bin", np.zeros(DIM, np.float32)
        recorder = new_recorder(path, v, GlobalStep(1.0, 0.0, DIM), 1)
        recorder.answered(0, Pulled(v, 0, 1.0), -1)
        recorder.refused(0, NOT_FINITE)
        recorder.close("")
        problem = Analytic(lambda u, g=1e30 if bad else 1.0: torch.full((DIM,), g))
        pool = ReplayedPool(problem, DenseLayout(DIM, Rule(name="sgd", learning_rate=1e30)))
        outcome = repeat(path, nodes=Nodes(lambda node, said, state, pool=pool: pool, B))
        assert outcome.refused == 1
        expected = "step 1: the delta of node 0 at the v of step 0, computed anew, is finite; the one that came was not"
        assert outcome.difference == (None if bad else expected)


class Always:
    def stopping(self):
        return False


def test_nodes_that_cannot_be_repeated_are_told(tmp_path):
    path, v = tmp_path / "r.bin", np.zeros(DIM, np.float32)
    recorder = new_recorder(path, v, GlobalStep(1.0, 0.0, DIM), 1)
    recorder.heard(0, b'[{"ready": {"actor_learners": [5, 6]}}]')
    recorder.heard(1, b'[{"ready": {"actor_learners": [7]}}, {"fault": {"message": "killed"}}]')
    recorder.close("")
    assert repeat(path, nodes=nodes()).given_up == {
        0: "its processes share u without a lock",
        1: "it lost a process before step 1",
    }


# The recorder's own troubles


def test_a_recording_that_is_full_ends_with_a_word_and_the_run_goes_on(tmp_path):
    told = []
    v, step = np.zeros(5, np.float32), GlobalStep(0.3, 0.0, 5)
    recorder = new_recorder(tmp_path / "r.bin", v, step, 1, limit_bytes=2500, tell=told.append)
    end = master(v, step, *recorder.around(Scripted([(0, 1, True)] * 30, 0), Record()), 1)
    recorder.close("")
    assert end == 30
    assert (tmp_path / "r.bin").stat().st_size <= 2500
    assert told == ["recording ends: r.bin has 0.00 GiB, and output.record_gib allows no more; training goes on"]
    outcome = repeat(tmp_path / "r.bin")
    assert (outcome.difference, outcome.cut) == (None, True)
    assert 0 < outcome.t < 30
    assert "record_gib" in outcome.last_word


def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path):
    """A file that may not grow, which the kernel refuses in the middle of a write, as it does on a full disk."""
    told = []
    v, step = np.zeros(5, np.float32), GlobalStep(0.3, 0.0, 5)
    recorder = new_recorder(tmp_path / "r.bin", v, step, 1, tell=told.append)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, limits[1]))
    try:
        end = master(v, step, *recorder.around(Scripted([(0, 1, True)] * 30, 0), Record()), 1)
        recorder.close("")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert end == 30
    assert told == ["recording ends: r.bin: File too large; training goes on"]
    outcome = repeat(tmp_path / "r.bin")
    assert (outcome.difference, outcome.cut) == (None, True)
    assert 0 < outcome.t < 30


def test_a_recording_that_cannot_begin_is_none(tmp_path):
    told = []
    v, step = np.zeros(5, np.float32), GlobalStep(0.3, 0.0, 5)
    recorder = new_recorder(tmp_path / "none" / "r.bin", v, step, 1, tell=told.append)
    assert master(v, step, *recorder.around(Scripted([(0, 1, True)] * 3, 0), Record()), 1) == 3
    recorder.close("")
    assert told == ["recording ends: r.bin: No such file or directory; training goes on"]


def test_checksum_is_of_the_bits():
    assert checksum(np.array([0.0], np.float32)) != checksum(np.array([-0.0], np.float32))
