"""The master's monitor against a clock, a tracker and a log that the tests hold in their hands."""

import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from hsa2c import signals
from hsa2c.agents.application import APPLICATION
from hsa2c.config.loading import to_dict
from hsa2c.dpsgd.protocols import Push
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import HSA2CError, StorageError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.monitor import RunMonitor
from hsa2c.tracker import Evaluation

V = np.arange(3, dtype=np.float32)
IDENTITY = {"application": "test"}


class FakeTracker:
    """Adds up work; the rest is what the test says."""

    def __init__(self):
        self.work = 0
        self.quality = None
        self.done = None
        self.share = 0.0
        self.worry = None
        self.heard = []
        self.looks = []
        self.measures = False

    def applied(self, node, updates):
        pass

    def add(self, node, report):
        self.work += report["work"]
        self.heard.append(node)

    def measure(self, v, *, due):
        self.looks.append(due)
        return self.measures

    def row(self, seconds):
        return {"work_per_s": self.work / seconds}

    def warning(self):
        return self.worry

    def counters(self):
        return {"agent_steps": self.work}

    def reached(self):
        return self.done

    def progress(self):
        return self.share


class FakeLog:
    """Remembers rows and events."""

    def __init__(self):
        self.rows, self.events, self.records = [], [], []

    def row(self, step, values, histograms=None):
        self.rows.append((step, values, histograms))

    def nodes(self, step, values, nodes):
        self.records.append((step, values, nodes))

    def event(self, kind, message, **fields):
        self.events.append((kind, message, fields))

    def kinds(self):
        return [kind for kind, *_ in self.events]


@pytest.fixture
def clock():
    """Seconds that pass when the test says so."""
    return SimpleNamespace(now=1000.0, processor=3.0)


@pytest.fixture
def make_monitor(clock, tmp_path):
    def make_monitor(*, counters=None, states=(), step=None, session=1, averages=0, **sections):
        sections = {"output": {"log_every_s": 5.0, "checkpoint_every_s": 60.0}} | sections
        config = APPLICATION.build_config(sections)
        log, tracker = FakeLog(), FakeTracker()
        monitor = RunMonitor(
            config=config,
            plain=to_dict(config),
            identity=IDENTITY,
            directory=tmp_path,
            session=session,
            log=log,
            tracker=tracker,
            step=step or GlobalStep(0.5, 0.0, 3),
            counters=counters or {},
            states=states,
            averages=averages,
            clocks=(lambda: clock.now, lambda: clock.processor),
        )
        return monitor, log, tracker

    return make_monitor


def report(*items):
    return json.dumps(items).encode()


def push(node=0, since=0, waited_s=0.0, delta_bytes=0, v_bytes=0):
    return Push(node, V, since, waited_s, delta_bytes, v_bytes)


def saved(tmp_path):
    return sorted(path.name for path in (tmp_path / "checkpoints").glob("*"))


# Rows


def test_row_every_interval_of_training(make_monitor, clock):
    monitor, log, _ = make_monitor()
    clock.now += 100
    assert not monitor.stopping()
    assert log.rows == [], "start-up is no training"
    monitor.begin("queues")
    assert log.events == [("training", "training", {"nodes": 1, "transport": "queues"})]
    monitor.heard(0, report({"work": 20}))
    clock.now += 0.875
    monitor.stopping()
    assert log.rows == []
    clock.now += 0.125
    monitor.stopping()
    monitor.stopping()
    ((step, values, _),) = log.rows
    assert (step, values["elapsed_s"], values["work_per_s"]) == (20, 1.0, 20.0)
    for _ in range(400):
        clock.now += 0.125
        monitor.stopping()
    elapsed_s = [values["elapsed_s"] for _, values, _ in log.rows]
    assert elapsed_s[:6] == pytest.approx([1, 2, 3, 4, 5.375, 7.25]), "after a quarter of what was, for a while"
    assert np.diff([since for since in elapsed_s if since > 20]) == pytest.approx(5.0)


def test_deltas_are_not_compared_by_running_averages(make_monitor, clock):
    monitor, log, _ = make_monitor(averages=1)
    monitor.begin("queues")
    for delta in ([0, 1, 70], [1, 0, 70]):
        monitor.received(Push(0, np.float32(delta), 0, 0.0, 0, 0), 0)
    monitor.stepped(1, V)
    clock.now += 6
    monitor.stopping()
    ((_, values, _),) = log.rows
    assert values["delta/norm_mean"] == pytest.approx(1.0)
    assert values["delta/agreement"] == pytest.approx(0.5**0.5), "orthogonal"


def test_row_by_hand(make_monitor, clock):
    monitor, log, _ = make_monitor(cluster={"nodes": 2}, optimiser={"learning_rate": 0.1})
    monitor.begin("queues")
    monitor.received(push(1, waited_s=50.0), 0)  # it had waited for the other one's start
    for tau, node in [(0, 1), (3, 0), (0, 1)]:
        monitor.received(push(node, waited_s=0.5), tau)
    monitor.stepped(2, V)
    monitor.received(push(0, waited_s=0.5), 2)
    clock.now += 6
    monitor.stopping()
    ((_, values, histograms),) = log.rows
    assert (values["exchanges"], values["global_steps"], values["speed/exchanges_per_s"]) == (5, 2, 5 / 6)
    assert (values["staleness/mean"], values["staleness/max"]) == (1.0, 3)
    assert histograms.pop("staleness/tau") == [0, 0, 3, 0, 2]
    assert values["delta/norm_mean"] == pytest.approx(5**0.5), "of (0, 1, 2)"
    assert (values["delta/cosine_mean"], values["delta/agreement"]) == pytest.approx((1.0, 1.0))
    assert {tag: len(samples) for tag, samples in histograms.items()} == {"delta/norm": 5, "delta/cosine": 1}
    assert (values["rate/eta"], values["rate/rho"]) == (0.1, 0.5)
    assert values["time/waiting_for_master"] == pytest.approx(1.5 / 6 / 2)
    assert (values["progress"], values["left_s"]) == (0.0, None)

    clock.now += 6
    monitor.stopping()
    _, values, histograms = log.rows[-1]
    assert (values["exchanges"], values["speed/exchanges_per_s"]) == (5, 0.0)
    assert (values["staleness/mean"], values["staleness/max"], histograms) == (None, None, {})


def test_bytes_are_those_of_a_mean_exchange(make_monitor, clock):
    monitor, log, _ = make_monitor()
    monitor.begin("MPI")
    rows = []
    for pushes in ([(100, 400), (100, 200)], [(100, 64)], []):
        for delta_bytes, v_bytes in pushes:
            monitor.received(push(delta_bytes=delta_bytes, v_bytes=v_bytes), 0)
        clock.now += 6
        monitor.stopping()
        rows.append(tuple(log.rows[-1][1][f"speed/{what}_bytes_per_exchange"] for what in ("delta", "v")))
    assert rows == [(100, 300), (100, 64), (None, None)]


def test_master_is_busy_when_it_does_not_sleep(make_monitor, clock):
    monitor, log, _ = make_monitor()
    monitor.slept(50.0)
    clock.processor += 2.0  # start-up, all that
    monitor.begin("queues")
    for slept_s, processor_s in [(1.0, 0.25), (3.5, 1.5)]:
        monitor.slept(slept_s)
        clock.now += 5
        clock.processor += processor_s
        monitor.stopping()
    assert [values["master/busy"] for _, values, _ in log.rows] == pytest.approx([0.8, 0.3])
    assert [values["master/processor"] for _, values, _ in log.rows] == pytest.approx([0.05, 0.3])
    monitor.slept(0.1)
    clock.now += 1
    monitor.finish(V)
    assert log.rows[-1][1]["master/busy"] is None, "too short a time"


def test_overlaps_of_all_processes_make_one_histogram(make_monitor, clock):
    monitor, log, tracker = make_monitor()
    monitor.begin("queues")
    monitor.heard(0, report({"work": 1, "overlap": {"0": 2, "3": 1}}, {"work": 1, "overlap": {"1": 1}}))
    clock.now += 5
    monitor.stopping()
    ((_, values, histograms),) = log.rows
    assert (values["staleness/overlap_mean"], values["staleness/overlap_max"]) == (1.0, 3)
    assert histograms == {"staleness/overlap": [0, 0, 1, 3]}
    assert tracker.work == 2


def test_nodes_are_recorded_every_half_minute_and_at_the_end(make_monitor, clock):
    monitor, log, _ = make_monitor(cluster={"nodes": 2})
    monitor.heard(1, report({"ready": {"host": "h1"}}))
    monitor.begin("MPI")
    for _ in range(8):
        clock.now += 5
        monitor.heard(0, report({"applied": 8}))
        monitor.heard(1, report({"applied": 6}, {"work": 3}))
        monitor.stopping()
    monitor.finish(V)
    assert [(step, values) for step, values, _ in log.records] == [
        (18, {"elapsed_s": 30.0, "seconds": 30.0}),
        (24, {"elapsed_s": 40.0, "seconds": 10.0}),
    ]
    for updates, (_, _, nodes) in zip([(48, 36), (16, 12)], log.records, strict=True):
        assert [(node["node"], node["host"], node["updates"]) for node in nodes] == [
            (0, None, updates[0]),
            (1, "h1", updates[1]),
        ]
    assert log.kinds()[-3:] == ["slowest_node", "checkpoint", "stop"]
    assert log.events[-3][1] == "slowest: node 1 on h1, 0.75 of the median of the others"


def test_nothing_new_of_the_nodes_is_no_record(make_monitor, clock):
    monitor, log, _ = make_monitor()
    monitor.begin("queues")
    clock.now += 30
    monitor.heard(0, report({"applied": 8}))
    monitor.stopping()
    monitor.finish(V)
    assert [values["seconds"] for _, values, _ in log.records] == [30.0]


def test_node_that_is_slow_for_long_is_a_warning(make_monitor, clock):
    monitor, log, _ = make_monitor(cluster={"nodes": 2})
    monitor.begin("MPI")
    for second in range(5, 200, 5):
        clock.now += 5
        monitor.heard(0, report({"applied": 4}))
        monitor.heard(1, report({"applied": 10}))
        monitor.stopping()
        assert log.kinds().count("warning") == int(second >= 60)


def test_time_left_is_to_the_nearest_limit(make_monitor, clock):
    monitor, log, tracker = make_monitor(stop={"minutes": 1.0})
    monitor.begin("queues")
    clock.now += 15
    tracker.share = 0.1
    monitor.stopping()
    _, values, _ = log.rows[-1]
    assert (values["progress"], values["left_s"]) == (0.25, pytest.approx(45))
    tracker.share = 0.5
    clock.now += 5
    monitor.stopping()
    _, values, _ = log.rows[-1]
    assert (values["progress"], values["left_s"]) == (0.5, pytest.approx(20))


def test_resumed_run_counts_on(make_monitor, clock):
    counters = {"elapsed_s": 50.0, "exchanges": 7, "global_steps": 5, "sessions": 2, "best_saved": 1.5}
    monitor, log, _ = make_monitor(counters=counters, session=4)
    clock.now += 30
    assert monitor.elapsed_s == 50.0
    monitor.begin("queues")
    monitor.received(push(), 0)
    clock.now += 10
    monitor.stopping()
    _, values, _ = log.rows[-1]
    assert (values["elapsed_s"], values["exchanges"], values["global_steps"]) == (60.0, 8, 5)
    assert values["speed/exchanges_per_s"] == 0.1
    checkpoint = checkpoints.load(monitor.finish(V))
    assert checkpoint.t == 5
    expected = counters | {"elapsed_s": 60.0, "exchanges": 8, "sessions": 4, "agent_steps": 0}
    assert {key: checkpoint.counters[key] for key in expected} == expected
    assert all(checkpoint.counters[name] == 0 for name in ("nodes_lost", "gradients_refused", "updates_applied"))


def test_ready_nodes_are_told_and_not_tracked(make_monitor):
    monitor, log, tracker = make_monitor()
    monitor.heard(1, report({"ready": {"host": "here", "pid": 3}}))
    assert log.events == [("node_ready", "node 1 is ready", {"node": 1, "host": "here", "pid": 3})]
    monitor.heard(1, b"[]")
    assert tracker.heard == []
    monitor.heard(1, report({"work": 1}, {"work": 2}))
    assert (tracker.heard, tracker.work) == ([1, 1], 3)


# Rates


def test_rate_is_constant_on_no_schedule(make_monitor, clock):
    monitor, _, tracker = make_monitor(stop={"minutes": 1.0}, optimiser={"half_after": None})
    monitor.begin("queues")
    clock.now += 30
    tracker.share = 0.9
    tracker.work = 10**9
    assert monitor.rate_scale() == 1.0


def test_rate_falls_with_work(make_monitor):
    monitor, log, tracker = make_monitor(optimiser={"half_after": 1000.0, "learning_rate": 0.2})
    assert monitor.rate_scale() == 1.0
    for work, scale in ((1000, 1 / 2), (3000, 1 / 4), (9000, 1 / 10)):
        tracker.work = work
        assert monitor.rate_scale() == pytest.approx(scale)
    monitor.begin("queues")
    monitor.finish(V)
    assert log.rows[-1][1]["rate/eta"] == pytest.approx(0.02)


def test_rate_falls_with_the_work_of_a_node(make_monitor):
    monitor, _, tracker = make_monitor(optimiser={"half_after": 1000.0}, cluster={"nodes": 4})
    tracker.work = 4000
    assert monitor.rate_scale() == pytest.approx(1 / 2)


def test_both_schedules_multiply(make_monitor):
    monitor, _, tracker = make_monitor(optimiser={"half_after": 1000.0, "anneal": True}, stop={"agent_steps": 4000})
    tracker.work, tracker.share = 1000, 0.25
    assert monitor.rate_scale() == pytest.approx(0.5 * 0.75)


def test_annealed_rate_falls_to_0_at_the_nearest_limit(make_monitor, clock):
    monitor, log, tracker = make_monitor(
        stop={"minutes": 1.0}, optimiser={"anneal": True, "half_after": None, "learning_rate": 0.2}
    )
    assert monitor.rate_scale() == 1.0
    monitor.begin("queues")
    clock.now += 15
    assert monitor.rate_scale() == 0.75
    tracker.share = 0.6
    assert monitor.rate_scale() == pytest.approx(0.4)
    monitor.stopping()
    assert log.rows[-1][1]["rate/eta"] == pytest.approx(0.08)
    clock.now += 60
    assert monitor.rate_scale() == 0.0


# Warnings


def test_a_worry_is_said_once_until_it_is_over(make_monitor):
    monitor, log, tracker = make_monitor(output={"log_every_s": 1e-9})
    monitor.begin("queues")
    for worry in (None, "stalled", "stalled for longer", None, "stalled again"):
        tracker.worry = worry
        monitor.finish(V)
    said = [message for kind, message, _ in log.events if kind == "warning"]
    assert said == ["stalled", "stalled again"]


# Checkpoints


def test_checkpoint_is_due_after_the_interval(make_monitor, clock, tmp_path):
    monitor, log, _ = make_monitor()
    clock.now += 500
    monitor.begin("queues")
    monitor.stepped(1, V)
    clock.now += 59
    monitor.stepped(2, V)
    assert saved(tmp_path) == []
    clock.now += 1
    monitor.stepped(3, V)
    monitor.stepped(4, V)
    assert saved(tmp_path) == ["step-000000003.safetensors"]
    clock.now += 60
    monitor.stepped(5, V)
    assert saved(tmp_path) == ["step-000000003.safetensors", "step-000000005.safetensors"]
    assert log.kinds() == ["training", "checkpoint", "checkpoint"]


def test_checkpoint_comes_a_little_early_when_every_state_is_there(make_monitor, clock, tmp_path):
    monitor, *_ = make_monitor(cluster={"nodes": 2})
    monitor.begin("queues")
    state = np.ones(4, np.float32)
    for node in (0, 1):
        monitor.kept(node, state + node)
    clock.now += 47
    monitor.stepped(1, V)
    assert saved(tmp_path) == [], "too early, complete or not"
    clock.now += 2
    monitor.stepped(2, V)
    assert saved(tmp_path) == ["step-000000002.safetensors"]
    clock.now += 49
    monitor.kept(0, state)
    monitor.stepped(3, V)
    assert len(saved(tmp_path)) == 1, "node 1 has sent nothing new"
    monitor.kept(1, state)
    monitor.stepped(4, V)
    assert len(saved(tmp_path)) == 2


def test_checkpoint_holds_what_a_resume_needs(make_monitor, tmp_path):
    step = GlobalStep(0.5, 0.5, 3)
    monitor, _, tracker = make_monitor(step=step, cluster={"nodes": 2})
    monitor.begin("queues")
    step(V.copy(), np.array([1, 2, 3], np.float32), 1)
    live = np.full(4, 7.0, np.float32)
    monitor.kept(1, live)
    monitor.kept(0, live * 2)
    live[:] = -1  # the port reuses its memory
    tracker.work = 42
    monitor.received(push(), 0)
    monitor.stepped(9, V)
    checkpoint = checkpoints.load(monitor.save(V))
    np.testing.assert_array_equal(checkpoint.v, V)
    np.testing.assert_array_equal(checkpoint.momentum, [1, 2, 3])
    assert [state.tolist() for state in checkpoint.optimiser_states] == [[14.0] * 4, [7.0] * 4]
    assert (checkpoint.t, checkpoint.identity, checkpoint.config["game"]) == (9, IDENTITY, "Pong")
    counters = checkpoint.counters
    assert (counters["agent_steps"], counters["global_steps"], counters["exchanges"]) == (42, 9, 1)
    assert (counters["sessions"], counters["best_saved"]) == (1, None)


def test_states_of_the_resumed_checkpoint_are_kept_until_there_are_newer_ones(make_monitor):
    old = tuple(np.full(2, node, np.float32) for node in (1.0, 2.0))
    monitor, *_ = make_monitor(cluster={"nodes": 2}, states=old)
    monitor.kept(1, np.full(2, 9.0, np.float32))
    states = checkpoints.load(monitor.save(V)).optimiser_states
    assert [state.tolist() for state in states] == [[1.0, 1.0], [9.0, 9.0]]


def test_best_is_saved_when_quality_has_improved(make_monitor, tmp_path):
    monitor, log, tracker = make_monitor()
    best = tmp_path / "checkpoints" / "best.safetensors"

    def save(t, quality):
        tracker.quality = quality
        monitor.stepped(t, V)
        monitor.save(V + t)
        return log.events[-1][2]["best"], checkpoints.load(best).t if best.exists() else None

    assert save(1, None) == (False, None)
    assert save(2, -20.0) == (True, 2)
    assert save(3, -20.0) == (False, 2)
    assert save(4, -20.5) == (False, 2)
    assert save(5, -19.0) == (True, 5)
    checkpoint = checkpoints.load(best)
    np.testing.assert_array_equal(checkpoint.v, V + 5)
    assert checkpoint.optimiser_states == ()
    assert checkpoint.counters["best_saved"] == -19.0


def test_best_is_saved_between_checkpoints_where_quality_is_measured(make_monitor, tmp_path):
    monitor, log, tracker = make_monitor()
    best = tmp_path / "checkpoints" / "best.safetensors"
    monitor.begin("hands")

    def step(t, quality, measures):
        tracker.quality, tracker.measures = quality, measures
        monitor.stepped(t, V + t)
        return checkpoints.load(best).t if best.exists() else None

    assert step(1, -900.0, measures=False) is None  # it was not measured on this v
    assert step(2, -900.0, measures=True) == 2
    assert step(3, -950.0, measures=True) == 2
    assert step(4, -800.0, measures=True) == 4
    np.testing.assert_array_equal(checkpoints.load(best).v, V + 4)
    assert tracker.looks == [False] * 4
    assert "checkpoint" not in log.kinds()
    monitor.save(V)
    assert tracker.looks[-1] is True


def test_best_of_earlier_sessions_counts(make_monitor, tmp_path):
    monitor, _, tracker = make_monitor(counters={"best_saved": 5.0})
    tracker.quality = 4.0
    monitor.save(V)
    assert not (tmp_path / "checkpoints" / "best.safetensors").exists()
    tracker.quality = 6.0
    monitor.save(V)
    assert (tmp_path / "checkpoints" / "best.safetensors").exists()


def test_old_checkpoints_go(make_monitor, tmp_path):
    monitor, *_ = make_monitor(output={"keep_checkpoints": 2})
    for t in (1, 2, 3):
        monitor.stepped(t, V)
        monitor.save(V)
    assert saved(tmp_path) == ["step-000000002.safetensors", "step-000000003.safetensors"]


# Ends


def test_nothing_stops_a_run_without_limits(make_monitor, clock):
    monitor, *_ = make_monitor()
    monitor.begin("queues")
    clock.now += 1e6
    monitor.heard(0, report({"work": 10**9}))
    assert not monitor.stopping()
    assert monitor.reason is None


def test_tracker_stops_the_run(make_monitor):
    monitor, _, tracker = make_monitor()
    monitor.begin("queues")
    assert not monitor.stopping()
    tracker.done = "10 agent steps (limit 10)"
    monitor.heard(0, report({"work": 10}))
    assert monitor.stopping()
    assert monitor.reason == "10 agent steps (limit 10)"


def test_minutes_are_of_training_and_count_over_sessions(make_monitor, clock):
    monitor, *_ = make_monitor(stop={"minutes": 1.0}, counters={"elapsed_s": 40.0})
    clock.now += 1000
    assert not monitor.stopping(), "start-up is no training"
    monitor.begin("queues")
    clock.now += 19.9
    assert not monitor.stopping()
    clock.now += 0.1
    assert monitor.stopping()
    assert monitor.reason == "1 min of training"


def test_first_reason_counts(make_monitor):
    monitor, *_ = make_monitor()
    monitor.stop("first")
    monitor.stop("second")
    assert monitor.reason == "first"
    assert monitor.stopping()


@pytest.mark.parametrize(
    ("signum", "reason"),
    [(signal.SIGINT, "signal SIGINT"), (signal.SIGTERM, "signal SIGTERM"), (signal.SIGUSR1, "asked to stop")],
)
def test_signals_stop_the_run(make_monitor, signum, reason):
    monitor, *_ = make_monitor()
    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        monitor.catch_signals()
        os.kill(os.getpid(), signum)
        assert monitor.stopping()
        assert monitor.reason == reason
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def test_finish_writes_the_last_row_and_checkpoint(make_monitor, clock, tmp_path):
    monitor, log, _ = make_monitor()
    monitor.begin("queues")
    clock.now += 0.4
    monitor.received(push(), 0)
    monitor.stepped(1, V)
    monitor.stop("enough")
    path = monitor.finish(V)
    _, values, _ = log.rows[-1]
    assert (values["elapsed_s"], values["exchanges"]) == (0.4, 1)
    assert (values["speed/exchanges_per_s"], values["time/waiting_for_master"]) == (None, None), "too short a time"
    assert log.kinds() == ["training", "checkpoint", "stop"]
    assert log.events[-1][1:] == (
        "enough",
        {"checkpoint": str(path), "elapsed_s": 0.4, "global_steps": 1, "exchanges": 1},
    )
    assert checkpoints.load(path).t == 1


def test_giving_up_before_training_writes_no_checkpoint(make_monitor, tmp_path):
    monitor, log, _ = make_monitor()
    monitor.stop("signal SIGTERM")
    monitor.give_up()
    assert log.events == [("stop", "signal SIGTERM, before training began", {})]
    assert saved(tmp_path) == []


def test_failure_is_told_with_its_traceback_and_what_there_is_is_kept(make_monitor, clock, tmp_path):
    monitor, log, _ = make_monitor()
    monitor.begin("queues")
    clock.now += 1
    monitor.stepped(4, V)
    monitor.fail("node 1: actor-learner 0 failed\nTraceback\n  KeyError", V)
    assert log.kinds() == ["training", "error", "checkpoint", "stop"]
    assert log.events[1] == ("error", "node 1: actor-learner 0 failed", {"traceback": "Traceback\n  KeyError"})
    assert log.events[-1][1] == "failed"
    assert saved(tmp_path) == ["step-000000004.safetensors"]


def test_failure_before_training_keeps_nothing(make_monitor, tmp_path):
    monitor, log, _ = make_monitor()
    monitor.fail("node 0: no ROM", V)
    assert log.events == [("error", "node 0: no ROM", {"traceback": None})]
    assert saved(tmp_path) == []


def test_parameter_that_is_not_finite_is_never_saved(make_monitor, tmp_path):
    monitor, log, _ = make_monitor()
    monitor.begin("queues")
    monitor.save(V)
    bad = np.array([0, np.nan, 1], np.float32)
    monitor.stepped(1, bad)
    with pytest.raises(HSA2CError, match="v has 1 of 3 entries that are not finite"):
        monitor.save(bad)
    monitor.fail("v has 1 of 3 entries that are not finite", bad)
    assert log.kinds() == ["training", "checkpoint", "error", "warning", "stop"]
    assert "v has 1 of 3 entries that are not finite" in log.events[-2][1]
    assert log.events[-1][:2] == ("stop", "failed")
    assert saved(tmp_path) == ["step-000000000.safetensors"]


def test_faults_are_told_counted_and_kept(make_monitor):
    monitor, log, _ = make_monitor(cluster={"nodes": 3})
    monitor.begin("queues")
    monitor.lost(2, "failed\nTraceback: all of it")
    monitor.lost(0, "its process has died")
    monitor.found(2, "begins, in place of the one that was lost")
    monitor.refused(1, "its delta is not finite")
    fault = {"message": "actor-learner 1 failed; another takes its place", "traceback": "Traceback", "pids": [7, 8]}
    monitor.heard(
        1, json.dumps([{"fault": fault}, {"applied": 5}, {"back": "actor-learner 1 (pid 8) goes on"}]).encode()
    )
    told = [(kind, message) for kind, message, _ in log.events]
    assert told[1:] == [
        ("node_lost", "node 2: failed"),
        ("node_lost", "node 0: its process has died"),
        ("node_back", "node 2 begins, in place of the one that was lost"),
        ("warning", "node 1: its delta is not finite, and not used"),
        ("warning", "node 1: actor-learner 1 failed; another takes its place"),
        ("actor_learner_back", "node 1: actor-learner 1 (pid 8) goes on"),
    ]
    assert log.events[1][2]["traceback"] == "Traceback: all of it"
    assert log.events[5][2]["actor_learners"] == [7, 8]
    counters = checkpoints.load(monitor.save(V)).counters
    names = ("nodes_lost", "nodes_back", "deltas_refused", "actor_learners_lost", "updates_applied")
    assert [counters[name] for name in names] == [2, 1, 1, 1, 5]


def test_row_says_how_many_nodes_work(make_monitor, clock):
    monitor, log, _ = make_monitor(cluster={"nodes": 3})
    monitor.begin("queues")
    monitor.lost(1, "silent for 15 s")
    clock.now += 10
    monitor.stopping()
    monitor.found(1, "is heard again")
    clock.now += 10
    monitor.stopping()
    assert [row[1]["nodes/working"] for row in log.rows] == [2, 3]
    assert [row[1]["faults/nodes_back"] for row in log.rows] == [0, 1]


def test_full_disk_is_told_and_tried_again(make_monitor, clock, monkeypatch):
    monitor, log, _ = make_monitor()
    monitor.begin("queues")
    tries = []

    def save(directory, checkpoint, *, keep, tell):
        tries.append(checkpoint.t)
        if len(tries) == 1:
            raise StorageError(f"{directory}: cannot be written: No space left on device")
        return directory / "x"

    monkeypatch.setattr(checkpoints, "save", save)
    for t in range(1, 4):
        clock.now += 61
        monitor.stepped(t, V)
    assert tries == [1, 2, 3]
    (warning,) = [message for kind, message, _ in log.events if kind == "warning"]
    assert warning.endswith("cannot be written: No space left on device; going on, and trying again in 60 s")


def test_best_checkpoint_that_found_no_room_is_tried_again(make_monitor, clock, monkeypatch):
    monitor, _, tracker = make_monitor()
    monitor.begin("queues")
    tracker.quality = 7.0
    tries = []

    def save_best(directory, checkpoint, *, tell):
        tries.append(checkpoint.counters["best_saved"])
        if len(tries) == 1:
            raise StorageError(f"{directory}: cannot be written: No space left on device")

    monkeypatch.setattr(checkpoints, "save_best", save_best)
    for t in range(1, 4):
        clock.now += 61
        monitor.stepped(t, V)
    assert tries == [7.0, 7.0]


# What nodes say of their exchanges


def pace(B, why=None, **costs):
    window = {"seconds": 5.0, "updates": 100, "exchanges": 10, "exchanging_s": 1.0, "lost_s": 0.5}
    return {"pace": {"B": B, "why": why, "p": 2, "rate_scale": 1.0, **window, **costs}}


def test_cost_of_exchanges_is_in_the_rows(make_monitor, clock):
    monitor, log, _ = make_monitor(cluster={"nodes": 2})
    monitor.begin("queues")
    monitor.heard(0, report(pace(4), pace(8, "B = 8 instead of 4: because", rate_scale=0.5)))
    monitor.heard(1, report(pace(2, lost_s=1.0, exchanging_s=2.0)))
    clock.now += 5.0
    monitor.stopping()
    row = log.rows[-1][1]
    assert (row["exchange/B"], row["exchange/B_least"], row["exchange/B_most"]) == (5.0, 2, 8)
    assert row["exchange/seconds"] == pytest.approx(0.15)  # 0.1 and 0.2
    assert row["exchange/lost_share"] == pytest.approx(0.15)  # 0.1 and 0.2
    assert row["exchange/update_s"] == pytest.approx(0.085)  # 2 * 4.5 / 100 and 2 * 4 / 100
    assert row["exchange/rate_scale"] == pytest.approx(0.75)
    assert [event for event in log.events if event[0] == "pace"] == [
        ("pace", "node 0: B = 8 instead of 4: because", {"node": 0, "B": 8})
    ]


def test_rows_before_nodes_have_said_what_exchanges_cost(make_monitor, clock):
    monitor, log, _ = make_monitor()
    monitor.begin("queues")
    monitor.heard(0, report(pace(4, updates=0)))
    clock.now += 5.0
    monitor.stopping()
    assert log.rows[-1][1]["exchange/update_s"] is None
    assert log.rows[-1][1]["exchange/B"] == 4


# Evaluations


class FakeEvaluator:
    """Comes to what the test says, at once."""

    def __init__(self):
        self.plan = Evaluation(evaluate=dict, best="score", every_s=10.0, limit_s=100.0)
        self.busy, self.scores = False, []

    def begin(self, path, *, beside_training):
        self.busy = True

    def result(self):
        self.busy = False
        return {"score": self.scores.pop(0)}

    def stop(self):
        self.busy = False


def test_evaluations_choose_the_best_checkpoint_and_are_in_rows_and_checkpoints(make_monitor, clock, tmp_path):
    monitor, log, tracker = make_monitor()
    evaluator = FakeEvaluator()
    monitor.evaluate_by(evaluator, {})
    monitor.begin("queues")
    tracker.quality, tracker.measures, evaluator.scores = 99.0, True, [4.0, 3.0]
    clock.now += 10
    tracker.work = 50
    monitor.stepped(2, V)
    clock.now += 5
    monitor.stopping()
    assert (log.rows[-1][1]["evaluate/score"], log.rows[-1][1]["evaluate/step"]) == (4.0, 50)
    clock.now += 1
    tracker.work = 60
    path = monitor.finish(V)
    assert log.rows[-1][1]["evaluate/score"] == 3.0
    assert log.rows[-1][1]["elapsed_s"] == 16.0
    assert checkpoints.load(tmp_path / "checkpoints/best.safetensors").t == 2
    assert saved(tmp_path) == ["best.safetensors", path.name]
    assert checkpoints.load(path).counters["evaluations"]["evaluate/step"] == 50, "it is saved before it is evaluated"
    assert log.kinds() == ["training", "evaluation", "checkpoint", "evaluating", "evaluation", "stop"]


def test_who_asks_for_an_end_does_not_wait_for_an_evaluation(make_monitor, clock):
    monitor, log, _ = make_monitor()
    monitor.evaluate_by(FakeEvaluator(), {})
    monitor.begin("queues")
    before = signals.handlers()
    try:
        monitor.catch_signals()
        os.kill(os.getpid(), signal.SIGUSR1)
        clock.now += 20
        monitor.stepped(2, V)
        monitor.finish(V)
    finally:
        signals.restore(before)
    assert log.kinds() == ["training", "checkpoint", "stop"]
