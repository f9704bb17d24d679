"""Runs over several emulated hosts, and faults between them: a node's death, a host's, a cable's."""

import contextlib
import os
import signal
import time

import numpy as np
import pytest

from bench.testbed.emulated_hosts import EmulatedHosts, why_not
from hsa2c.cluster.machine import share_of_cores
from tests.processes import TESTS, started, wait_until
from tests.test_faults import children, goes_on, gone, ready

WHY_NOT = why_not()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(200),
    pytest.mark.skipif(WHY_NOT is not None, reason=f"hosts cannot be emulated: {WHY_NOT}"),
]


@pytest.fixture
def hosts():
    with EmulatedHosts(3) as hosts:
        yield hosts


@contextlib.contextmanager
def training(hosts, tmp_path, listed, number, *settings):
    """Nodes that train on the listed hosts, started on the first of all, and have written a checkpoint."""
    file = tmp_path / "hosts"
    file.write_text(listed)
    settings = (f"cluster.hosts={file}", f"cluster.nodes={number}", *settings)
    command = (TESTS / "faulty_application.py", tmp_path, "quiet", *settings)
    with started(tmp_path / "quiet", *command, starter=hosts.inside("h0"), **hosts.environment) as run:
        run.wait_for_checkpoint()
        yield run


def stop(hosts, run, *names):
    """Ctrl-C; nothing is left of the run on these hosts, and its checkpoint is whole."""
    run.launcher.send_signal(signal.SIGINT)
    assert run.end() == 130, run.stderr()
    for name in names or hosts.names:
        wait_until(lambda: not hosts.processes(name), f"the end of {name}'s processes", limit_s=30)  # noqa: B023
        wait_until(lambda: not hosts.shared_memory(name), f"no shared memory on {name}", limit_s=30)  # noqa: B023
    assert [path.name for path in run.directory.glob(".v*")] == []
    checkpoint = run.checkpoint()
    assert checkpoint.t == run.events("stop")[-1]["global_steps"]
    assert np.isfinite(checkpoint.v).all()
    return checkpoint


def test_nodes_are_where_the_file_says(hosts, tmp_path):
    listed = "h0  # and the master\nh1 slots=2\nh2 p=3\n"
    with training(hosts, tmp_path, listed, 4, "cluster.processes=null") as run:
        nodes = ready(run)
        assert [nodes[node]["host"] for node in range(4)] == ["h0", "h1", "h1", "h2"]
        on = {1: share_of_cores(1), 2: share_of_cores(2)}
        assert [len(nodes[node]["actor_learners"]) for node in range(4)] == [on[1], on[2], on[2], 3]
        for node, name in enumerate(("h0", "h1", "h1", "h2")):
            assert {nodes[node]["pid"], *nodes[node]["actor_learners"]} <= set(hosts.processes(name))
        goes_on(run)
        stop(hosts, run)


def test_spare_takes_the_place_of_a_node_on_another_host(hosts, tmp_path):
    with training(hosts, tmp_path, "h0\nh1\nh2\n", 3, "cluster.spares=1") as run:
        wait_until(lambda: 3 in ready(run), "the spare")
        assert ready(run)[1]["host"] == "h1"
        victim = ready(run)[1]["pid"]
        theirs = children(victim)
        assert theirs
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: run.events("node_back"), "the spare's work")
        wait_until(lambda: all(gone(pid) for pid in theirs), "the end of its children")
        (lost,), (back,) = run.events("node_lost"), run.events("node_back")
        assert lost["message"] == "node 1: its process has died"
        assert back["message"] == "node 3 begins, in place of node 1"
        assert back["time"] - lost["time"] < 1
        goes_on(run)
        # Without another spare the run goes on short: on other hosts MPI cannot start a second process.
        os.kill(ready(run)[2]["pid"], signal.SIGKILL)
        wait_until(lambda: len(run.events("node_lost")) == 2, "the second loss")
        goes_on(run)
        assert run.rows()[-1]["nodes/working"] == 2
        stop(hosts, run)


def test_run_goes_on_on_the_hosts_that_are_left(hosts, tmp_path):
    """The master's host is lost, which is not the launcher's."""
    with training(hosts, tmp_path, "h1\nh2 p=2\n", 2, "cluster={processes: null, restarts: 1}") as run:
        assert {event["host"] for event in run.events("node_ready")} == {"h1", "h2"}
        hosts.kill_host("h1")
        wait_until(lambda: len(run.events("training")) == 2 or run.launcher.poll() is not None, "training")
        assert [event["host"] for event in run.events("host_lost")] == ["h1"]
        assert "host lost: host h1 does not answer" in run.stderr()
        (restart,) = run.events("restart")
        assert restart["message"].endswith(" on h2, 1 of 2 nodes")
        second = [event for event in run.events("node_ready") if event["session"] == 2]
        assert [event["host"] for event in second] == ["h2"]
        assert len(second[0]["actor_learners"]) == 2, "p is the host's, whichever node runs there"
        goes_on(run)
        # By rule: rho M = 1 for the one node that is left, as it was for two.
        assert run.rows()[-1]["rate/rho"] == 1
        stop(hosts, run, "h0", "h2")


def test_nobody_waits_for_a_host_that_is_cut_off(hosts, tmp_path):
    """u counts updates, and with rho = M = 1 v is the sum of what the deltas count for."""
    settings = ("cluster.absence_s=3", "dpsgd={deltas_per_step: 1, global_rate: 1, max_delay: 50}")
    with training(hosts, tmp_path, "h0\nh1\nh2\n", 3, *settings) as run:
        assert ready(run)[2]["host"] == "h2"
        of_node_2 = lambda kind: [event["message"] for event in run.events(kind) if event["node"] == 2]
        hosts.cut("h2")
        wait_until(lambda: of_node_2("node_lost"), "the silence to be noticed")
        assert of_node_2("node_lost") == ["node 2: silent for 3 s"]
        goes_on(run, 200)
        assert of_node_2("node_back") == []
        hosts.restore("h2")
        wait_until(lambda: of_node_2("node_back"), "the node to be heard again")
        assert of_node_2("node_back") == ["node 2 is heard again"]
        wait_until(lambda: run.rows()[-1]["nodes/working"] == 3, "a row")
        goes_on(run)
        checkpoint = stop(hosts, run)
        # What was under way, and what the node did while it was cut off, is as old as that, and counts for 50 / tau.
        assert max(row.get("staleness/max") or 0 for row in run.rows()) > 200
        assert 0 < checkpoint.v.max() < checkpoint.counters["updates_applied"] - 50


def test_stop_while_ranks_start_leaves_nothing_on_any_host(hosts, tmp_path):
    file = tmp_path / "hosts"
    file.write_text("h0\nh1\nh2\n")
    command = (TESTS / "faulty_application.py", tmp_path, "quiet", f"cluster.hosts={file}", "cluster.nodes=3")
    with started(tmp_path / "quiet", *command, starter=hosts.inside("h0"), **hosts.environment) as run:
        wait_until(lambda: all(hosts.processes(name) for name in ("h1", "h2")), "daemons or ranks on the other hosts")
        run.launcher.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert run.end() == 143, run.stderr()
        assert time.monotonic() - began < 10, "it takes three seconds"
        for name in hosts.names:
            wait_until(lambda: not hosts.processes(name), f"the end of {name}'s processes", limit_s=10)  # noqa: B023
            wait_until(lambda: not hosts.shared_memory(name), f"no shared memory on {name}", limit_s=10)  # noqa: B023
        assert "stopped before training began" in run.stderr()
        assert [path.name for path in run.directory.glob(".v*")] == []
