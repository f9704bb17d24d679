"""The lock-free process pool with real processes: exact where it can be, and never a process too many."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from hsa2c.dpsgd.protocols import Listener, Vector
from hsa2c.errors import NodeError, ProblemError
from hsa2c.node import actor_learner
from hsa2c.node.layout import DenseLayout
from hsa2c.node.memory import SharedVectors
from hsa2c.node.optimiser import Rule
from hsa2c.node.process_pool import PoolLimits, ProcessPool
from hsa2c.node.serial import SerialPool
from tests.dpsgd.problems import double_well, quadratic
from tests.dpsgd.waiting import LIMIT_S, Turns, wait_until

pytestmark = pytest.mark.timeout(60)

TARGET = torch.tensor([1.0, -2.0, 0.5, 0.0])
CURVATURE = torch.tensor([1.0, 0.1, 2.0, 0.5])
DIM = TARGET.numel()
V = np.array([0.3, 0.1, -0.2, 3.0], np.float32)
SGD = Rule(name="sgd", learning_rate=0.1)
RULES = {
    "sgd": SGD,
    "rmsprop": Rule(name="rmsprop", learning_rate=0.01),
    "adam": Rule(name="adam", learning_rate=0.01),
}


class Ear(Listener):
    """A listener that remembers; says stop when `stop` does."""

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self._stop = stop
        self.told: list[bytes] = []
        self.kept: list[Vector] = []

    def stopping(self) -> bool:
        return self._stop()

    def tell(self, report: bytes) -> None:
        self.told.append(report)

    def keep(self, state: Vector) -> None:
        self.kept.append(state.copy())


class Behaviour:
    """A quadratic that does something else first, in every gradient."""

    def __init__(self, first: Callable[[], Any]) -> None:
        self._first = first
        self._quadratic = quadratic(TARGET)

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
        self._first()
        return self._quadratic.gradient(u_hat, interrupted)

    def report(self) -> Mapping[str, Any]:
        return self._quadratic.report()

    def close(self) -> None:
        pass


def fine(_: int) -> Any:
    return quadratic(TARGET, CURVATURE)


@pytest.fixture
def made() -> Iterator[Callable[..., ProcessPool]]:
    """Makes process pools, and afterwards sees that nothing is left of them."""
    pools: list[ProcessPool] = []
    here = psutil.Process()
    before = {child.pid for child in here.children(recursive=True)}

    def make(problem: Callable[[int], Any] = fine, p: int = 1, rule: Rule = SGD, **options: Any) -> ProcessPool:
        pool = ProcessPool(problem, DenseLayout(DIM, rule), p, **options)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()
    assert {child.pid for child in here.children(recursive=True)} <= before
    assert all(gone(pid) for pool in pools for pid in pool.pids)


def run(pool: Any, v: Vector = V, B: int = 1, rate_scale: float = 1.0, listener: Listener | None = None) -> Vector:
    return pool.run(v, B, rate_scale=rate_scale, listener=listener or Ear()).copy()


def updates(pool: Any) -> int:
    """All that its processes report, in however many pieces: a slow machine makes them say more."""
    return sum(report.get("updates", 0) for report in json.loads(pool.report()))


def gone(pid: int) -> bool:
    """Whether a process has ended; whoever inherited it may not have looked yet."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


# What a process pool computes


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_p_1_is_the_serial_pool_bit_for_bit(made: Callable[..., ProcessPool], rule: Rule) -> None:
    pool = made(p=1, rule=rule)
    serial = SerialPool(fine(0), DenseLayout(DIM, rule))
    v = V
    for rate_scale in (1.0, 0.5, 0.25):
        u = run(pool, v, 20, rate_scale)
        np.testing.assert_array_equal(u, run(serial, v, 20, rate_scale))
        np.testing.assert_array_equal(pool.state(), serial.state())
        assert not np.array_equal(u, v)
        v = u * np.float32(0.9)  # the next v is another than this u, as with several nodes
    assert updates(pool) == updates(serial) == 60


def test_one_update_by_hand(made: Callable[..., ProcessPool]) -> None:
    """v = 3, gradient 0.5 * (3 - 0), eta 0.1 * 0.5: 3 - 0.05 * 1.5."""
    for pool in (made(), SerialPool(fine(0), DenseLayout(DIM, SGD))):
        assert run(pool, V, 1, 0.5)[3] == pytest.approx(2.925)


@pytest.mark.parametrize(("p", "name"), [(2, "sgd"), (3, "sgd"), (2, "rmsprop"), (3, "adam")])
def test_several_processes_converge(made: Callable[..., ProcessPool], p: int, name: str) -> None:
    pool = made(p=p, rule=RULES[name])
    u = V
    for round_ in range(8):
        u = run(pool, u, 200, rate_scale=0.5**round_ if name != "sgd" else 1.0)
    np.testing.assert_allclose(u, TARGET.numpy(), atol=0.02)
    assert updates(pool) == 8 * 200 * p


def test_several_processes_find_a_minimum_of_a_function_with_many(made: Callable[..., ProcessPool]) -> None:
    pool = made(lambda _: double_well(), p=2)
    u = run(pool, np.array([0.3, -0.1, 2.0, -1.5], np.float32), 300)
    np.testing.assert_allclose(u, [1, -1, 1, -1], atol=1e-3)


class Stale:
    """Process 0 and 1 both read; then 0 writes as often as it likes; only then 1's gradient is ready.

    Turns: 0, 1: process 0, then 1, has read. 2: process 0 has written for the last time, and reports.
    """

    def __init__(self, index: int, turns: Turns, B: int) -> None:
        self._index, self._turns, self._B = index, turns, B
        self._gradients = 0

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
        if self._gradients == 0:
            self._turns.wait_for(self._index)
            self._turns.next()
            self._turns.wait_for(2 + self._index)
        self._gradients += 1
        return CURVATURE * (u_hat - TARGET)

    def report(self) -> Mapping[str, Any]:
        if self._index == 0 and self._gradients == self._B:
            self._turns.next()
        return {}

    def close(self) -> None:
        pass


def overlaps(pool: ProcessPool) -> Counter[int]:
    """How many updates had each overlap."""
    counts: Counter[int] = Counter()
    for report in json.loads(pool.report()):
        counts.update({int(overlap): updates for overlap, updates in report.get("overlap", {}).items()})
    return counts


@pytest.mark.parametrize("B", [1, 4])
def test_overlap_is_what_others_wrote_since_the_read(made: Callable[..., ProcessPool], B: int) -> None:
    """Process 0's B updates fall between the read and the write of process 1's first one, and no other has any."""
    turns = Turns()
    pool = made(lambda index: Stale(index, turns, B), p=2)
    run(pool, V, B)
    assert overlaps(pool) == Counter({0: B - 1}) + Counter({0: B, B: 1})


def test_process_alone_overlaps_with_nobody(made: Callable[..., ProcessPool]) -> None:
    pool = made()
    run(pool, V, 7)
    assert overlaps(pool) == {0: 7}


def test_update_that_is_refused_has_no_overlap(made: Callable[..., ProcessPool]) -> None:
    pool = made(lambda _: quadratic(torch.full((DIM,), math.nan)))
    run(pool, V, 3)
    assert overlaps(pool) == {}


@pytest.mark.parametrize("B", [1, 4])
def test_a_stale_gradient_is_applied_to_what_is_there_by_then(made: Callable[..., ProcessPool], B: int) -> None:
    """Both read v. Process 0 makes its B updates; then process 1 makes its first one with the gradient at v (Eq. 5)."""
    turns = Turns()
    u = run(made(lambda index: Stale(index, turns, B), p=2), V, B)
    v = torch.from_numpy(V)
    reference = v.clone()
    for _ in range(B):
        reference.sub_(CURVATURE * (reference - TARGET), alpha=0.1)
    serial = reference.clone()
    reference.sub_(CURVATURE * (v - TARGET), alpha=0.1)  # the stale one
    serial.sub_(CURVATURE * (serial - TARGET), alpha=0.1)
    for _ in range(B - 1):
        for w in (reference, serial):
            w.sub_(CURVATURE * (w - TARGET), alpha=0.1)
    np.testing.assert_array_equal(u, reference.numpy())
    assert np.abs(u - serial.numpy()).max() > 1e-3


def test_state_goes_on_from_what_is_given(made: Callable[..., ProcessPool]) -> None:
    rule = RULES["adam"]
    first, whole = made(rule=rule), SerialPool(fine(0), DenseLayout(DIM, rule))
    middle = run(first, V, 10)
    state = first.state().copy()
    for other in (made(rule=rule, state=state), SerialPool(fine(0), DenseLayout(DIM, rule), state=state)):
        state_before = state.copy()
        np.testing.assert_array_equal(run(other, middle, 10), run(whole, run(whole, V, 10), 10))
        np.testing.assert_array_equal(other.state(), whole.state())
        np.testing.assert_array_equal(state, state_before)
        whole = SerialPool(fine(0), DenseLayout(DIM, rule))


def test_u_starts_from_v_every_time_but_the_state_stays(made: Callable[..., ProcessPool]) -> None:
    pool = made(rule=RULES["rmsprop"])
    first = run(pool, V)
    second = run(pool, V)
    assert not np.array_equal(first, second)
    assert pool.state()[-1] == 2


# What a process pool says


@pytest.mark.parametrize("p", [1, 3])
def test_reports_count_p_times_B_updates(made: Callable[..., ProcessPool], p: int) -> None:
    pool = made(p=p)
    for B in (1, 7):
        run(pool, V, B)
        assert updates(pool) == B * p
    assert pool.report() == b"[]"


def test_reports_may_hold_numpy_numbers(made: Callable[..., ProcessPool]) -> None:
    class Numbers(Behaviour):
        def report(self) -> Mapping[str, Any]:
            return {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": [np.float64(1)]}

    pool = made(lambda _: Numbers(lambda: None))
    run(pool)
    report, *_ = json.loads(pool.report())
    assert report.items() >= {"a": 0.5, "b": 3, "c": True, "d": [1.0]}.items()


@pytest.mark.parametrize(
    ("report", "error"),
    [({"a": object()}, ProblemError), ([("a", 1)], ProblemError), ({"long": "x" * 150_000}, NodeError)],
    ids=["no JSON", "no mapping", "too long"],
)
def test_a_report_that_cannot_be_sent_is_an_error(
    made: Callable[..., ProcessPool], report: Any, error: type[Exception]
) -> None:
    class Bad(Behaviour):
        def report(self) -> Mapping[str, Any]:
            return report

    with pytest.raises(
        error, match=r"report of Bad must be JSON values|a report of 150... bytes: must be at most 131072"
    ):
        run(made(lambda _: Bad(lambda: None)))


def test_a_report_may_be_long(made: Callable[..., ProcessPool]) -> None:
    class Long(Behaviour):
        def report(self) -> Mapping[str, Any]:
            return {"long": "x" * 130_000}

    pool = made(lambda _: Long(lambda: None), p=2)
    run(pool)
    lengths = [len(report["long"]) for report in json.loads(pool.report()) if "long" in report]
    assert len(lengths) >= 2
    assert set(lengths) == {130_000}


def test_process_that_the_system_does_not_let_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fork of the second one, in the fork server, fails as it does beyond ``ulimit -u``."""
    fork, forks = os.fork, iter(range(2))  # the node forks the fork server, the fork server the first one

    def limited() -> int:
        if next(forks, None) is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    monkeypatch.setattr("os.fork", limited)
    with pytest.raises(NodeError, match=f"^actor-learner 1 cannot be started: {os.strerror(errno.EAGAIN)} "):
        ProcessPool(lambda _: quadratic(TARGET), DenseLayout(DIM, SGD), 2)


def test_signs_of_life_while_a_round_takes_long(made: Callable[..., ProcessPool]) -> None:
    ear = Ear()
    pool = made(lambda _: quadratic(TARGET, seconds=0.02), p=2, limits=PoolLimits(tell_s=0.05))
    run(pool, B=20, listener=ear)
    assert ear.told
    items = [item for text in [*ear.told, pool.report()] for item in json.loads(text)]
    said = [item["updates"] for item in items if "updates" in item]
    assert sum(said) == 40


def test_no_sign_of_life_is_needed_in_a_short_round(made: Callable[..., ProcessPool]) -> None:
    ear = Ear()
    run(made(limits=PoolLimits(tell_s=1000.0)), listener=ear)
    assert ear.told == []


def test_a_process_reports_in_the_middle_of_its_updates() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        talking = actor_learner.Talking(quadratic(TARGET), theirs, every_s=0.0)
        for _ in range(2):
            assert talking.gradient(torch.zeros(DIM), lambda: False) is not None
        said = [ours.recv(1000) for _ in range(2)]
        assert [text[:1] for text in said] == [b"P", b"P"]
        assert [json.loads(text[1:])["updates"] for text in said] == [0, 1]


def test_a_process_reports_in_the_middle_of_a_gradient() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        played = 0

        class Rollout:
            def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor:
                nonlocal played
                for _ in range(3):
                    assert not interrupted()
                    played += 1
                return u_hat

            def report(self) -> dict[str, int]:
                return {"played": played}

            def close(self) -> None: ...

        actor_learner.Talking(Rollout(), theirs, every_s=0.0).gradient(torch.zeros(DIM), lambda: False)
        said = [ours.recv(1000) for _ in range(4)]
        assert [json.loads(text[1:])["played"] for text in said] == [0, 0, 1, 2]
        assert {text[:1] for text in said} == {b"P"}


def test_reports_say_where_a_process_spends_its_time(made: Callable[..., ProcessPool]) -> None:
    began_at = time.perf_counter()
    pool = made()
    pool.wait_ready()
    time.sleep(0.1)
    for _ in range(2):
        run(pool, B=3)
    spent = [report["pool_s"] for report in json.loads(pool.report()) if "pool_s" in report]
    assert sum(seconds["waiting"] + seconds["optimiser"] for seconds in spent) < time.perf_counter() - began_at
    assert spent[0]["waiting"] > 0.05
    assert sum(seconds["optimiser"] for seconds in spent) > 0


def test_seconds_of_a_process_begin_with_its_first_update(made: Callable[..., ProcessPool]) -> None:
    """It waits for its first order for 0.3 s, for the second one for 0.2, and sleeps in its gradients."""
    pool = made(lambda _: quadratic(TARGET, seconds=0.1))
    pool.wait_ready()
    began_at = time.perf_counter()
    time.sleep(0.3)
    run(pool, B=2)
    time.sleep(0.2)
    run(pool, B=2)
    took_s = time.perf_counter() - began_at
    seconds = Counter[str]()
    for report in json.loads(pool.report()):
        seconds.update(report.get("process_s", {}))
    assert 0.6 <= seconds["wall"] <= took_s - 0.3
    assert 0.19 <= seconds["waiting"] <= seconds["wall"] - 0.4
    assert seconds["computing"] <= seconds["wall"] - 0.6 + 0.05


def test_state_is_kept_when_due(made: Callable[..., ProcessPool]) -> None:
    often, rarely = Ear(), Ear()
    rule = RULES["rmsprop"]
    pool = made(rule=rule, limits=PoolLimits(keep_s=0.0))
    for n in range(1, 4):
        run(pool, B=2, listener=often)
        assert len(often.kept) == n
        np.testing.assert_array_equal(often.kept[-1], pool.state())
    assert often.kept[-1][-1] == 6
    run(made(rule=rule, limits=PoolLimits(keep_s=1000.0)), listener=rarely)
    assert rarely.kept == []


# How a process pool stops


def test_stop_ends_a_round_early(made: Callable[..., ProcessPool]) -> None:
    pool = made(p=2)
    ear = Ear(stop=lambda: True)
    run(pool, B=10**9, listener=ear)
    assert updates(pool) < 2 * 10**9
    run(pool, B=5)  # and the next one is whole
    assert updates(pool) == 10


def test_stop_reaches_a_gradient_that_waits(made: Callable[..., ProcessPool]) -> None:
    class Waits(Behaviour):
        def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
            wait_until(interrupted, "interrupted")
            return None

    pool = made(lambda _: Waits(lambda: None), p=2)
    u = run(pool, B=3, listener=Ear(stop=lambda: True))
    np.testing.assert_array_equal(u, V)
    assert updates(pool) == 0


def test_a_stop_does_not_wait_long_for_one_that_hangs(made: Callable[..., ProcessPool]) -> None:
    hanging = Turns()

    def hang() -> None:
        hanging.next()
        time.sleep(1000)

    limits = PoolLimits(rest_s=0.2, finish_s=1000.0)
    pool = made(lambda index: Behaviour(hang) if index == 1 else fine(index), p=2, limits=limits)
    u = run(pool, listener=Ear(stop=lambda: hanging.done == 1))
    assert np.isfinite(u).all()
    pool.close()
    assert not any(psutil.pid_exists(pid) for pid in pool.pids)


def test_serial_pool_stops_before_the_next_update() -> None:
    problem = quadratic(TARGET)
    asked = iter([False, False, True])
    pool = SerialPool(problem, DenseLayout(DIM, SGD))
    run(pool, B=10, listener=Ear(stop=lambda: next(asked)))
    assert updates(pool) == 2


def test_close_twice_is_fine_and_quick(made: Callable[..., ProcessPool]) -> None:
    pool = made(p=2)
    pool.wait_ready()
    pool.close()
    pool.close()
    assert not any(psutil.pid_exists(pid) for pid in pool.pids)


def test_problems_are_closed(made: Callable[..., ProcessPool]) -> None:
    closed = Turns()

    class Closes(Behaviour):
        def close(self) -> None:
            closed.next()

    pool = made(lambda _: Closes(lambda: None))
    run(pool)
    pool.close()
    assert closed.done == 1


def test_closing_one_pool_does_not_wait_for_another(made: Callable[..., ProcessPool]) -> None:
    """The second process pool's processes were forked with copies of the first one's sockets."""
    limits = PoolLimits(finish_s=LIMIT_S)
    first, second = made(p=2, limits=limits), made(p=2, limits=limits)
    first.wait_ready()
    second.wait_ready()
    before = time.monotonic()
    first.close()
    assert time.monotonic() - before < LIMIT_S / 2
    run(second)


class Lost(Exception):
    """A listener's: the node has lost its master in the middle of a round."""


def lose_when(condition: Callable[[], bool]) -> Ear:
    def stopping() -> bool:
        if condition():
            raise Lost
        return False

    return Ear(stop=stopping)


def test_close_in_the_middle_of_a_round_lets_processes_end_in_order(made: Callable[..., ProcessPool]) -> None:
    events = Turns()

    class Waits(Behaviour):
        def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
            events.next()
            wait_until(interrupted, "interrupted", limit_s=1000.0)
            return None

        def close(self) -> None:
            events.next()

    pool = made(lambda _: Waits(lambda: None), limits=PoolLimits(finish_s=LIMIT_S))
    with pytest.raises(Lost):
        run(pool, listener=lose_when(lambda: events.done == 1))
    pool.close()
    assert events.done == 2


def test_close_kills_a_process_that_hangs(made: Callable[..., ProcessPool]) -> None:
    hanging = Turns()

    def hang() -> None:
        hanging.next()
        time.sleep(1000)

    limits = PoolLimits(finish_s=0.2)
    pool = made(lambda index: Behaviour(hang) if index == 1 else fine(index), p=2, limits=limits)
    with pytest.raises(Lost):
        run(pool, listener=lose_when(lambda: hanging.done == 1))
    pool.close()
    assert not any(psutil.pid_exists(pid) for pid in pool.pids)


# How a process pool fails


def test_an_exception_comes_with_its_traceback_and_index(made: Callable[..., ProcessPool]) -> None:
    pool = made(lambda index: Behaviour(lambda: 1 // (1 - index)), p=2)
    with pytest.raises(NodeError) as caught:
        run(pool, B=3)
    message = str(caught.value)
    assert message.startswith(f"actor-learner 1 (pid {pool.pids[1]}) failed\nTraceback")
    assert "test_process_pool.py" in message
    assert message.rstrip().endswith("ZeroDivisionError: integer division or modulo by zero")


def test_an_exception_with_any_text_arrives(made: Callable[..., ProcessPool]) -> None:
    def fail() -> None:
        raise ValueError("\udcff" + "\u4e2d" * 300_000 + "the end")

    with pytest.raises(NodeError, match="the end"):
        run(made(lambda _: Behaviour(fail)))


def test_an_exception_while_the_problem_is_built(made: Callable[..., ProcessPool]) -> None:
    def build(index: int) -> Any:
        return {0: fine(0)}[index]

    pool = made(build, p=2)
    with pytest.raises(NodeError, match=r"(?s)^actor-learner 1 \(pid \d+\) failed\n.*KeyError: 1$"):
        pool.wait_ready()


def test_exit_is_a_failure_too(made: Callable[..., ProcessPool]) -> None:
    def leave() -> None:
        raise SystemExit(0)

    with pytest.raises(NodeError, match=r"(?s)actor-learner 0 .*SystemExit"):
        run(made(lambda _: Behaviour(leave)))


def test_an_end_without_a_word(made: Callable[..., ProcessPool]) -> None:
    with pytest.raises(NodeError, match=r"^actor-learner 0 \(pid \d+\) ended without a word \(exit code 7\)$"):
        run(made(lambda _: Behaviour(lambda: os._exit(7))))


def test_killed_in_the_middle_of_a_round(made: Callable[..., ProcessPool]) -> None:
    def kill(index: int) -> None:
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    pool = made(lambda index: Behaviour(lambda: kill(index)), p=3)
    with pytest.raises(NodeError, match=r"^actor-learner 2 \(pid \d+\) was killed by SIGKILL$"):
        run(pool, B=5)


def test_killed_between_two_rounds(made: Callable[..., ProcessPool]) -> None:
    pool = made(p=2)
    run(pool)
    os.kill(pool.pids[0], signal.SIGKILL)
    wait_until(lambda: gone(pool.pids[0]), "the end of process 0")
    with pytest.raises(NodeError, match=r"^actor-learner 0 .*SIGKILL"):
        run(pool)


def test_killed_before_it_has_read_its_order(made: Callable[..., ProcessPool]) -> None:
    pool = made()
    run(pool)
    os.kill(pool.pids[0], signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pool.pids[0]).status() == psutil.STATUS_STOPPED, "SIGSTOP")
    ear = Ear(stop=lambda: os.kill(pool.pids[0], signal.SIGKILL) is not None)
    with pytest.raises(NodeError, match=r"^actor-learner 0 .*SIGKILL"):
        run(pool, listener=ear)


def test_killed_process_is_replaced_and_its_share_done(made: Callable[..., ProcessPool]) -> None:
    pool = made(p=2)
    pool.wait_ready()
    run(pool)
    pool.report()
    victim = pool.pids[0]
    os.kill(victim, signal.SIGKILL)
    run(pool, B=7)
    assert pool.pids[0] != victim
    reports = json.loads(pool.report())
    assert sum(report.get("updates", 0) for report in reports) == 2 * 7
    assert sum(report.get("applied", 0) for report in reports) == 2 * 7
    (fault,) = [report["fault"] for report in reports if "fault" in report]
    assert fault["message"].startswith(f"actor-learner 0 (pid {victim}) was killed by SIGKILL; actor-learner 0 (pid ")
    assert fault["pids"] == pool.pids


def test_successor_goes_on_with_the_optimisers_state(made: Callable[..., ProcessPool]) -> None:
    pool = made(rule=RULES["adam"], limits=PoolLimits(deaths_s=0.0))
    serial = SerialPool(fine(0), DenseLayout(DIM, RULES["adam"]))
    pool.wait_ready()
    for _ in range(3):
        u = run(pool, B=5)
        np.testing.assert_array_equal(u, run(serial, B=5))
        os.kill(pool.pids[0], signal.SIGKILL)
        wait_until(lambda: gone(pool.pids[0]), "its end")


def test_one_that_failed_is_replaced_and_its_traceback_kept(made: Callable[..., ProcessPool]) -> None:
    gradients = Turns()  # of all that ever were actor-learner 0

    def fail_once() -> None:
        gradients.next()
        if gradients.done == 2:
            raise ArithmeticError("once")

    pool = made(lambda _: Behaviour(fail_once))
    pool.wait_ready()
    run(pool, B=3)
    (fault,) = [report["fault"] for report in json.loads(pool.report()) if "fault" in report]
    assert "failed; actor-learner 0 (pid " in fault["message"]
    assert "ArithmeticError: once" in fault["traceback"]
    assert gradients.done == 2 + 3


def test_too_many_deaths_end_it(made: Callable[..., ProcessPool]) -> None:
    pool = made(p=2, suspect="it")
    pool.wait_ready()
    for _ in range(2):
        os.kill(pool.pids[1], signal.SIGKILL)
        run(pool)
    os.kill(pool.pids[0], signal.SIGKILL)
    rule = r"^3 actor-learners lost within 60 s; the last: .* \(pid \d+\) was killed by SIGKILL; look at it$"
    with pytest.raises(NodeError, match=rule):
        run(pool)


def test_deaths_of_long_ago_do_not_count(made: Callable[..., ProcessPool]) -> None:
    pool = made(limits=PoolLimits(deaths_s=0.0))
    pool.wait_ready()
    for _ in range(4):
        os.kill(pool.pids[0], signal.SIGKILL)
        run(pool)


def test_without_the_process_that_forks_a_node_cannot_go_on(made: Callable[..., ProcessPool]) -> None:
    pool = made()
    pool.wait_ready()
    (orphan,) = pool.pids
    os.kill(psutil.Process(orphan).ppid(), signal.SIGKILL)
    wait_until(lambda: gone(orphan), "the end of its child")
    with pytest.raises(NodeError, match=r"^the process that forks the actor-learners \(pid \d+\) has died or hangs$"):
        run(pool)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradient_that_is_not_finite_is_not_used(made: Callable[..., ProcessPool], bad: float) -> None:
    class Sometimes(Behaviour):
        calls = 0

        def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
            self.calls += 1
            g = torch.ones(DIM)
            if self.calls % 3 == 0:
                g[2] = bad
            return g

    pool = made(lambda _: Sometimes(lambda: None))
    pool.wait_ready()
    u = run(pool, np.zeros(DIM, np.float32), B=9)
    np.testing.assert_allclose(u, -0.1 * 6, rtol=1e-6)
    assert sum(report.get("refused_gradients", 0) for report in json.loads(pool.report())) == 3


#: Gradients that do not fit u, and what is said of them.
UNFIT = {
    "short": (torch.ones(DIM - 1), rf"\[{DIM - 1}\].*\[{DIM}\]"),
    "long": (torch.ones(DIM + 1), rf"\[{DIM + 1}\].*\[{DIM}\]"),
    "one": (torch.ones(1), rf"\[1\].*\[{DIM}\]"),
    "row": (torch.ones(1, DIM), rf"\[1, {DIM}\].*\[{DIM}\]"),
    "double": (torch.ones(DIM, dtype=torch.float64), r"torch\.float64"),
    "gaps": (torch.ones(2 * DIM)[::2], r"strides \[2\]"),
    "array": (np.ones(DIM, np.float32), "a ndarray"),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("unfit", UNFIT)
def test_gradient_that_does_not_fit_u_is_refused_at_once(
    made: Callable[..., ProcessPool], unfit: str, rule: Rule
) -> None:
    g, said = UNFIT[unfit]

    class Unfit(Behaviour):
        def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> Any:
            return g

    pool = made(lambda _: Unfit(lambda: None), p=2, rule=rule)
    pool.wait_ready()
    with pytest.raises(ProblemError, match=r"^actor-learner \d \(pid \d+\): a gradient is .*" + said):
        run(pool)
    serial = SerialPool(Unfit(lambda: None), DenseLayout(DIM, rule))
    with pytest.raises(ProblemError, match=said):
        run(serial)
    assert not serial.state().any()


@pytest.mark.parametrize("v", [np.ones(1, np.float32), np.ones(DIM + 1, np.float32), np.ones(DIM)], ids=str)
def test_v_that_does_not_fit_u_is_refused(made: Callable[..., ProcessPool], v: Vector) -> None:
    for pool in (made(), SerialPool(fine(0), DenseLayout(DIM, SGD))):
        with pytest.raises(ProblemError, match=rf"^v is {v.dtype} \[{v.size}\], must be float32 \[{DIM}\]$"):
            run(pool, v)


@pytest.mark.parametrize("size", [1, DIM, 2 * DIM, 2 * DIM + 2])
def test_state_of_another_length_is_refused(size: int) -> None:
    state = np.zeros(size, np.float32)
    with pytest.raises(ProblemError, match=rf"\[{size}\], must be float32 \[{2 * DIM + 1}\]$"):
        SerialPool(fine(0), DenseLayout(DIM, RULES["adam"]), state=state)
    with pytest.raises(ProblemError, match=rf"\[{size}\]"):
        ProcessPool(fine, DenseLayout(DIM, RULES["adam"]), 1, state=state)


def test_u_that_is_not_finite_is_an_error(made: Callable[..., ProcessPool]) -> None:
    class Huge(Behaviour):
        def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
            return torch.full((DIM,), 8e37)

    pool = made(lambda _: Huge(lambda: None))
    with pytest.raises(NodeError, match=r"^its local parameter u is no longer finite$"):
        run(pool, B=100)


def test_building_a_problem_has_a_limit(made: Callable[..., ProcessPool]) -> None:
    def build(index: int) -> Any:
        time.sleep(1000 * index)
        return fine(index)

    pool = made(build, p=2, limits=PoolLimits(start_s=0.6, finish_s=0.1))
    before = time.monotonic()
    with pytest.raises(NodeError, match="actor-learners not ready after 1 s"):
        pool.wait_ready()
    assert time.monotonic() - before >= 0.6
    pool.close()


def test_waiting_until_all_are_ready_is_not_required(made: Callable[..., ProcessPool]) -> None:
    pool = made(p=2)
    run(pool)
    assert updates(pool) == 2


# What a process pool leaves behind


def test_signals_of_the_terminal_and_the_batch_system_are_not_for_actor_learners(
    made: Callable[..., ProcessPool],
) -> None:
    pool = made()
    pool.wait_ready()
    for name in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pool.pids[0], name)
    run(pool)
    assert updates(pool) == 1


def _node(pipe: Any) -> None:
    """A node's process: its process pool is in the middle of a round for ever."""

    def hang() -> None:
        pipe.send(os.getpid())
        time.sleep(1000)

    ProcessPool(lambda _: Behaviour(hang), DenseLayout(DIM, SGD), 2).run(V, 1, rate_scale=1.0, listener=Ear())


def test_actor_learners_die_with_a_node_that_is_killed() -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    node = context.Process(target=_node, args=(theirs,))
    node.start()
    pids = []
    for _ in range(2):
        assert ours.poll(LIMIT_S)
        pids.append(ours.recv())
    assert not any(gone(pid) for pid in pids)
    node.kill()
    node.join()
    try:
        wait_until(lambda: all(gone(pid) for pid in pids), "the end of the actor-learners")
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    node.close()
    ours.close()
    theirs.close()


def test_shared_memory_has_no_name(made: Callable[..., ProcessPool]) -> None:
    def files(pid: int | str) -> set[str]:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
        mapped = {line.split(maxsplit=5)[5] for line in maps if "/dev/shm/" in line}
        opened = {file.path for file in psutil.Process(int(pid)).open_files() if file.path.startswith("/dev/shm/")}
        return mapped | opened

    here = os.getpid()
    before = files(here)
    pool = made(p=2, rule=RULES["adam"])
    pool.wait_ready()
    for pid in (here, *pool.pids):
        assert files(pid) <= before


def test_shared_vectors() -> None:
    shared = SharedVectors(3, 4)
    assert shared.u.tolist() == [0, 0, 0]
    assert shared.state.tolist() == [0, 0, 0, 0]
    assert not shared.interrupted
    shared.u[:] = math.nan
    shared.state[:] = math.nan
    assert not shared.interrupted
    shared.interrupted = True
    assert shared.interrupted
    assert shared.u.isnan().all()
    assert shared.state.isnan().all()
    assert SharedVectors(3, 0).state.numel() == 0
