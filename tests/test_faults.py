"""Faults that are really injected, into real processes: what is lost, what goes on, and what a run says of it."""

import contextlib
import itertools
import os
import re
import signal
import time

import numpy as np
import psutil
import pytest

from hsa2c.cluster.loopback import listening
from tests.processes import TESTS, master, started, training, wait_until

pytestmark = pytest.mark.timeout(300)


@contextlib.contextmanager
def faulty(tmp_path, fault, *settings):
    with started(tmp_path / fault, TESTS / "faulty_application.py", tmp_path, fault, *settings) as run:
        yield run


@contextlib.contextmanager
def nodes(tmp_path, number, *settings, fault="quiet"):
    """Several nodes over MPI that train, and have written a checkpoint."""
    with faulty(tmp_path, fault, f"cluster.nodes={number}", *settings) as run:
        run.wait_for_checkpoint()
        yield run


def ready(run):
    """The last word of each node that it is ready."""
    return {event["node"]: event for event in run.events("node_ready")}


def gone(pid):
    """Whether a process has ended; whoever inherited it may not have looked yet."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def children(pid):
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def goes_on(run, exchanges=20):
    """The run makes so many exchanges more."""
    rows = lambda: [row["exchanges"] for row in run.rows() if "exchanges" in row] or [0]
    before = rows()[-1]
    wait_until(lambda: rows()[-1] >= before + exchanges or run.launcher.poll() is not None, "exchanges")
    assert run.launcher.poll() is None, run.stderr()


def stop(run, code=130):
    """Ctrl-C; nothing is left of the run, and its checkpoint is whole."""
    run.launcher.send_signal(signal.SIGINT)
    assert run.end() == code, run.stderr()
    run.assert_gone()
    checkpoint = run.checkpoint()
    assert checkpoint.t == run.events("stop")[-1]["global_steps"]
    assert np.isfinite(checkpoint.v).all()
    return checkpoint


# An actor-learner


@pytest.mark.slow
def test_actor_learner_that_is_killed_is_replaced(tmp_path):
    with training(tmp_path, "--p", 2) as run:
        run.wait_for_checkpoint()
        victim = ready(run)[0]["actor_learners"][1]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: run.events("warning"), "the loss in the journal")
        (loss,) = run.events("warning")
        assert loss["message"].startswith(
            f"node 0: actor-learner 1 (pid {victim}) was killed by SIGKILL; actor-learner 1"
        )
        wait_until(lambda: loss["message"] in run.stderr(), "the console")
        goes_on(run)
        assert all(psutil.pid_exists(pid) for pid in loss["actor_learners"])
        assert stop(run).counters["actor_learners_lost"] == 1
        assert run.rows()[-1]["faults/actor_learners_lost"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["paper", "overlap"])
def test_three_deaths_within_a_minute_end_a_node(tmp_path, exchange):
    with faulty(tmp_path, "quiet", "cluster.processes=2", f"dpsgd.exchange={exchange}") as run:
        run.wait_for_checkpoint()
        pids = ready(run)[0]["actor_learners"]
        for deaths in range(1, 4):
            os.kill(pids[deaths % 2], signal.SIGKILL)
            if deaths < 3:
                wait_until(lambda: len(run.events("warning")) == deaths, "the replacement")  # noqa: B023
                pids = run.events("warning")[-1]["actor_learners"]
        assert run.end() == 1
        run.assert_gone()
        (error,) = run.events("error")
        assert error["message"].startswith("node 0: 3 actor-learners lost within 60 s; the last: actor-learner 1 (pid ")
        assert error["message"] in run.stderr()
        assert run.checkpoint().t == run.events("stop")[0]["global_steps"]


def test_exceptions_in_an_actor_learner_are_told_with_node_and_traceback(tmp_path):
    with faulty(tmp_path, "gradient-0") as run:
        assert run.end() == 1
        run.assert_gone()
        stderr = run.stderr()
        assert "error: node 0: 3 actor-learners lost within 60 s; the last: actor-learner 0 (pid " in stderr
        assert "Traceback (most recent call last):" in stderr
        assert "ArithmeticError: the gradient is lost" in stderr
        assert run.events("stop")[0]["message"] == "failed"
        assert np.isfinite(run.checkpoint().v).all()


@pytest.mark.slow
def test_actor_learner_that_cannot_begin_says_why(tmp_path):
    with faulty(tmp_path, "problem") as run:
        assert run.end() == 1
        run.assert_gone()
        stderr = run.stderr()
        assert "error: node 0: actor-learner 0 (pid " in stderr
        assert "Traceback (most recent call last):" in stderr
        assert "LookupError: no data for the problem" in stderr
        assert not (run.directory / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [("optimiser.name=adam", "cluster.processes=2"), ("cluster.nodes=2",)])
def test_gradient_of_another_length_than_v_ends_the_run_with_one_line(tmp_path, settings):
    with faulty(tmp_path, "short", *settings) as run:
        assert run.end() == 1
        run.assert_gone()
        (error,) = run.events("error")
        why = run.events("node_lost")[0] if "cluster.nodes=2" in settings else error
        assert re.match(r"node \d: actor-learner .* \[3\].* must be torch.float32 \[4\]", why["message"])
        assert "Traceback" not in run.stderr()


@pytest.mark.slow
def test_v_0_of_another_length_ends_the_run_with_one_line(tmp_path):
    with faulty(tmp_path, "start", "cluster.nodes=2") as run:
        assert run.end() == 1
        run.assert_gone()
        (error,) = run.events("error")
        assert error["message"] == "v_0 is float32 [5], must be float32 [4]"
        assert "Traceback" not in run.stderr()


# Numbers that are not


@pytest.mark.slow
def test_gradients_that_are_not_finite_are_refused_and_counted(tmp_path):
    with faulty(tmp_path, "nan-0") as run:
        run.wait_for_checkpoint()
        wait_until(lambda: run.events("warning"), "the refusal in the journal")
        goes_on(run)
        checkpoint = stop(run)
        assert run.events("warning")[0]["message"] == "node 0: 1 gradient is not finite, and not used"
        refused = checkpoint.counters["gradients_refused"]
        assert refused > 0
        # Every other gradient is in v, and nothing else.
        assert checkpoint.v.tolist() == [checkpoint.counters["gradients"] - refused] * checkpoint.v.size


@pytest.mark.slow
def test_gradients_that_never_are_finite_end_the_run(tmp_path):
    with faulty(tmp_path, "nans-0") as run:
        assert run.end() == 1
        run.assert_gone()
        assert "100 gradients in a row are not finite" in run.stderr()
        assert (run.checkpoint().v == 0).all()


# A node


@pytest.mark.slow
def test_node_that_is_killed_is_replaced(tmp_path):
    with nodes(tmp_path, 3) as run:
        victim = ready(run)[1]["pid"]
        theirs = children(victim)
        assert theirs
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: run.events("node_back"), "the replacement")
        wait_until(lambda: all(gone(pid) for pid in theirs), "the end of its children")
        (lost,), (back,) = run.events("node_lost"), run.events("node_back")
        assert lost["message"] == "node 1: its process has died"
        assert back["message"] == "node 1 begins, in place of the one that was lost"
        assert back["time"] - lost["time"] < 30
        assert ready(run)[1]["pid"] != victim
        goes_on(run)
        checkpoint = stop(run)
        assert (checkpoint.counters["nodes_lost"], checkpoint.counters["nodes_back"]) == (1, 1)
        assert {row["nodes/working"] for row in run.rows() if "nodes/working" in row} >= {3}


@pytest.mark.slow
def test_spare_takes_the_place_of_a_node(tmp_path):
    with nodes(tmp_path, 2, "cluster.spares=1") as run:
        wait_until(lambda: 2 in ready(run), "the spare")
        os.kill(ready(run)[0]["pid"], signal.SIGKILL)
        wait_until(lambda: run.events("node_back"), "the spare's work")
        (lost,), (back,) = run.events("node_lost"), run.events("node_back")
        assert back["message"] == "node 2 begins, in place of node 0"
        assert back["time"] - lost["time"] < 1
        goes_on(run)
        stop(run)


@pytest.mark.slow
def test_node_that_fails_again_and_again_is_left_out(tmp_path):
    with faulty(tmp_path, "gradient-1", "cluster.nodes=2") as run:
        wait_until(lambda: len(run.events("node_lost")) == 3 or run.launcher.poll() is not None, "the third loss")
        goes_on(run)
        assert len(run.events("node_back")) == 2
        lost = run.events("node_lost")[-1]
        assert "node 1: 3 actor-learners lost within 60 s" in lost["message"]
        assert "ArithmeticError: the gradient is lost" in lost["traceback"]
        assert run.rows()[-1]["nodes/working"] == 1
        stop(run)


@pytest.mark.slow
def test_nobody_waits_for_a_node_that_hangs(tmp_path):
    with nodes(tmp_path, 2, "cluster.absence_s=8") as run:
        victim = psutil.Process(ready(run)[0]["pid"])
        victim.suspend()
        wait_until(lambda: run.events("node_lost"), "the silence to be noticed")
        assert run.events("node_lost")[0]["message"] == "node 0: silent for 8 s"
        goes_on(run)
        victim.resume()
        wait_until(lambda: run.events("node_back"), "the node to be heard again")
        assert run.events("node_back")[0]["message"] == "node 0 is heard again"
        goes_on(run)
        stop(run)


@pytest.mark.slow
def test_v_is_the_updates_that_were_acknowledged(tmp_path):
    """u counts updates, and v, with rho = M = 1, the sum of all deltas: whoever is killed, what is reported is in v."""
    with nodes(tmp_path, 2, "dpsgd.deltas_per_step=1", "dpsgd.global_rate=1") as run:
        os.kill(ready(run)[0]["actor_learners"][0], signal.SIGKILL)
        wait_until(lambda: run.events("actor_learner_back"), "the replacement")
        goes_on(run)
        os.kill(ready(run)[1]["pid"], signal.SIGKILL)
        wait_until(lambda: run.events("node_back"), "the replacement")
        goes_on(run)
        checkpoint = stop(run)
        applied = checkpoint.counters["updates_applied"]
        assert applied > 100
        # Unlocked: an update may come between u's copy and the count of it, and the node may die just then.
        assert np.abs(checkpoint.v - applied).max() <= 2


@pytest.mark.slow
def test_run_ends_with_its_master_though_mpiexec_hangs(tmp_path):
    """As it does when the master is killed while MPI starts a node for it."""
    with nodes(tmp_path, 2) as run:
        os.kill(run.job().pid, signal.SIGSTOP)
        os.kill(master(run), signal.SIGKILL)
        assert run.end() == 1
        run.assert_gone()
        assert np.isfinite(run.checkpoint().v).all()


@pytest.mark.slow
def test_run_ends_though_a_node_hangs(tmp_path):
    with nodes(tmp_path, 2, "cluster.absence_s=8") as run:
        victim = psutil.Process(ready(run)[0]["pid"])
        victim.suspend()
        run.launcher.send_signal(signal.SIGINT)
        assert run.launcher.wait(60) == 130, run.stderr()
        run.assert_gone()
        assert run.checkpoint().t == run.events("stop")[-1]["global_steps"]
        assert "node lost: node 0: silent for 8 s" in run.stderr()


# The master


@pytest.mark.slow
def test_nodes_end_when_their_master_dies(tmp_path):
    with nodes(tmp_path, 2) as run:
        os.kill(master(run), signal.SIGKILL)
        assert run.end() == 1
        run.assert_gone()
        assert "the job failed" in run.stderr()
        log = (run.directory / "log.txt").read_text()
        assert "node 0: the master has died" in log
        assert "node 1: the master has died" in log
        assert run.checkpoint().t > 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_run_goes_on_by_itself_when_its_master_has_died(tmp_path, number):
    restarts = 3 - number
    with nodes(tmp_path, number, f"cluster.restarts={restarts}") as run:
        for restart in itertools.count(1):
            t = run.checkpoint().t
            os.kill(master(run), signal.SIGKILL)
            if restart > restarts:
                break
            wait_until(lambda: len(run.events("training")) == restart + 1, "training")  # noqa: B023
            saved = len(run.events("checkpoint"))
            wait_until(lambda: len(run.events("checkpoint")) > saved, "a new checkpoint")  # noqa: B023
            assert run.checkpoint().t > t
        assert run.end() == 1, "as often as asked, and no more"
        run.assert_gone()
        assert len(run.events("restart")) == restarts


# Several masters


def follower(run, rank=1):
    """A master's process id that is not the lead's."""
    for process in run.processes():
        with contextlib.suppress(psutil.Error):
            ranks = "hsa2c.run.entry" in process.cmdline()
            if ranks and process.environ().get("OMPI_COMM_WORLD_RANK") == str(rank):
                return process.pid
    raise AssertionError("no such master")


@pytest.mark.slow
def test_several_masters_go_on_without_a_node_and_v_is_whole(tmp_path):
    """As in `test_v_is_the_updates_that_were_acknowledged`, each slice at a master of its own; then at another number
    of masters.
    """
    # No delta counts for less than it is, however late it comes.
    settings = ("dpsgd.deltas_per_step=1", "dpsgd.global_rate=1", "dpsgd.max_delay=1000000000", "dpsgd.exchange=paper")
    with nodes(tmp_path, 2, "cluster.masters=2", "cluster.spares=1", *settings) as run:
        assert (run.checkpoint().v > 0).all(), "gathered in the middle of the run"
        wait_until(lambda: 2 in ready(run), "the spare")
        os.kill(ready(run)[0]["pid"], signal.SIGKILL)
        wait_until(lambda: run.events("node_back"), "the spare's work")
        assert run.events("node_back")[0]["message"] == "node 2 begins, in place of node 0"
        goes_on(run, 100)
        first = stop(run)
    # A delta that was on its way when the node was killed has perhaps reached one of the two.
    assert np.abs(first.v - first.counters["updates_applied"]).max() <= 10
    with faulty(tmp_path, "quiet", "cluster.nodes=2", "cluster.masters=3", *settings) as run:
        wait_until(lambda: len(run.events("training")) == 2, "training")
        goes_on(run)
        second = stop(run)
    assert second.t > first.t
    more = second.counters["updates_applied"] - first.counters["updates_applied"]
    assert np.abs(second.v - first.v - more).max() <= 2
    assert (second.v - first.v == (second.v - first.v)[0]).all(), "every slice has got every delta"


@pytest.mark.slow
def test_run_without_one_of_its_masters_ends_and_begins_again(tmp_path):
    with nodes(tmp_path, 2, "cluster.masters=2", "cluster.restarts=1") as run:
        before = run.checkpoint().t
        os.kill(follower(run), signal.SIGKILL)
        wait_until(lambda: len(run.events("training")) == 2, "training")
        saved = len(run.events("checkpoint"))
        wait_until(lambda: len(run.events("checkpoint")) > saved, "a new checkpoint")
        assert run.checkpoint().t > before
        os.kill(follower(run), signal.SIGKILL)
        assert run.end() == 1
        run.assert_gone()
        assert [event["message"] for event in run.events("error")] == ["master 1 has died"] * 2
        assert "master 1 has died" in run.stderr()
        assert np.isfinite(run.checkpoint().v).all()


# The disk


@pytest.mark.slow
def test_full_disk_does_not_end_training(tmp_path):
    """No file of the master can grow beyond what it has: as on a full disk, without one."""
    with faulty(tmp_path, "quiet") as run:
        run.wait_for_checkpoint()
        before = run.checkpoint().t
        process = psutil.Process(master(run))
        process.rlimit(psutil.RLIMIT_FSIZE, (64, psutil.RLIM_INFINITY))
        time.sleep(3.0)
        assert run.launcher.poll() is None, run.stderr()
        assert run.checkpoint().t <= before + 1000, "whole, and of before"
        process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        told = lambda: [event["message"] for event in run.events("warning")]
        wait_until(lambda: any("could not be written" in message for message in told()), "word of what was lost")
        wait_until(lambda: run.checkpoint().t > before, "a new checkpoint")
        assert stop(run).counters["checkpoints_unwritten"] > 0


@pytest.mark.slow
def test_last_checkpoint_that_cannot_be_written_is_a_failure(tmp_path):
    with faulty(tmp_path, "quiet", "stop.minutes=0.07") as run:
        run.wait_for_checkpoint()
        psutil.Process(master(run)).rlimit(psutil.RLIMIT_FSIZE, (64, psutil.RLIM_INFINITY))
        assert run.end() == 1
        run.assert_gone()
        assert "the job failed" in run.stderr()
        assert run.checkpoint().t > 0, "the one of before"


# What can be reached from outside


@pytest.mark.slow
def test_nothing_listens_beyond_loopback(tmp_path):
    with nodes(tmp_path, 2) as run:
        listeners = [listener for process in run.processes() for listener in listening(process.pid)]
        assert listeners, "mpiexec listens, and is looked at"
        assert {device for _, device in listeners} <= {"lo", "127.0.0.1", "::1"}
        stop(run)


# All of it


@pytest.mark.slow
def test_what_an_update_takes_is_measured_without_the_time_of_a_suspension(tmp_path):
    """A window of 5 s with a stop of 8 in it seemed to be of 13, and its updates to take more than twice as long."""
    with nodes(tmp_path, 2, "cluster.processes=1", "dpsgd.exchange=overlap") as run:
        measured = lambda: [row["exchange/update_s"] for row in run.rows() if row.get("exchange/update_s")]
        wait_until(measured, "a window")
        usual = np.median(measured())
        everybody = run.processes()
        for process in everybody:
            process.suspend()
        time.sleep(8.0)
        for process in everybody:
            process.resume()
        resumed_at = time.time()
        later = lambda: [row for row in run.rows() if row["time"] > resumed_at + 8.0]
        wait_until(lambda: len(later()) > 3, "the next windows")
        assert max(measured()) < 2 * usual
        stop(run)
