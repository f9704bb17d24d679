"""docs/reference/stopping.md's table of signals, with real processes: who ends in which phase, and what is left."""

import os
import signal
import time
from pathlib import Path

import pytest

from hsa2c.cluster.mpiexec import mpi_starter
from tests.processes import TESTS, TINY, command_line, master, resuming, started, training, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ENDS_WITHIN_S = 10.0  # it takes one; a machine may be busy. What this is to find took 120.


def maps(process, library):
    """Whether a process has loaded a library."""
    try:
        return library in Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return False


def of_module(run, module):
    return [process for process in run.processes() if module in command_line(process)]


def ranks(run):
    return [process for process in of_module(run, "hsa2c.run.entry") if process.name() != "prterun"]


def has_directory(run):
    return run.directory.exists()


def has_job(run):
    return run.job()


def job_loads_torch(run):
    return any(maps(process, "libtorch") for process in ranks(run))


def fork_server_loads_torch(run):
    return any(maps(process, "libtorch") for process in of_module(run, "hsa2c.run.fork_server"))


def master_loads_mpi(run):
    return any(maps(process, "libmpi.so") for process in of_module(run, "hsa2c.run.fork_server"))


def actor_learners_begin(run):
    return (
        len(of_module(run, "hsa2c.run.fork_server")) >= 7
    )  # itself, the master, two nodes, a fork server and an actor-learner each


def end_within_limit(run):
    begin = time.monotonic()
    code = run.end()
    assert time.monotonic() - begin < ENDS_WITHIN_S, run.stderr()
    return code


def end_at_once(run):
    """Within 3 s, or as many times longer as others use the machine."""
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    begin = time.monotonic()
    code = run.end()
    assert time.monotonic() - begin < min(ENDS_WITHIN_S, 3.0 * busy), run.stderr()
    return code


def assert_nothing_is_left(run):
    run.assert_gone()
    assert not run.directory.exists()


@pytest.mark.parametrize(
    ("nodes", "phase", "names"),
    [
        (1, has_directory, ["SIGINT"]),
        (1, has_job, ["SIGHUP"]),
        (1, job_loads_torch, ["SIGTERM", "SIGTERM"]),
        (2, has_directory, ["SIGTERM"]),
        (2, has_job, ["SIGINT", "SIGINT"]),
        (2, master_loads_mpi, ["SIGUSR1"]),
        (2, fork_server_loads_torch, ["SIGINT"]),
        (2, actor_learners_begin, ["SIGTERM"]),
    ],
)
def test_stop_while_a_run_starts_ends_it_and_leaves_nothing(tmp_path, nodes, phase, names):
    with training(tmp_path, "--nodes", nodes) as run:
        wait_until(lambda: phase(run) or run.launcher.poll() is not None, phase.__name__)
        for name in names:
            run.launcher.send_signal(signal.Signals[name])
        assert end_at_once(run) == 128 + signal.Signals[names[0]]
        if run.directory.exists() and run.events("training"):  # which began before the signal came
            assert phase is actor_learners_begin
            run.assert_gone()
            return
        assert "checkpoint" not in run.stderr()
        assert run.stderr().splitlines()[-1] in (
            "train.py: interrupted",
            f"{names[0]}: stopped before training began; nothing is left of this run",
        )
        assert_nothing_is_left(run)


def test_stop_with_many_games_ends_in_good_order(tmp_path):
    with training(tmp_path, "--set", "agent.num_envs=64") as run:
        wait_until(lambda: run.events("training"), "training")
        run.launcher.send_signal(signal.SIGINT)
        assert end_at_once(run) == 130
        run.assert_gone()
        assert run.events("stop")[-1]["message"] == "asked to stop"


def test_resumed_run_that_is_stopped_while_it_starts_keeps_what_it_had(tmp_path):
    with training(tmp_path) as run:
        run.wait_for_checkpoint()
        run.launcher.send_signal(signal.SIGTERM)
        assert run.end() == 143
        run.assert_gone()
        before = {path: path.read_bytes() for path in (run.directory / "checkpoints").iterdir()}
    with resuming(tmp_path / "run", "--nodes", 2) as run:
        wait_until(lambda: fork_server_loads_torch(run), "the fork server")
        run.launcher.send_signal(signal.SIGINT)
        assert end_within_limit(run) == 130
        run.assert_gone()
        assert {path: path.read_bytes() for path in (run.directory / "checkpoints").iterdir()} == before
        assert run.events("stop")[-1]["message"] == "SIGINT: stopped before training began"
        assert run.stderr().splitlines()[-1] == "SIGINT: stopped before training began; the last checkpoint stays"


def test_ready_world_that_is_stopped_while_it_starts_ends(tmp_path):
    """mpiexec hands USR1 on to all ranks, and lets the others go on when one has died: nobody may wait for it."""
    starter, variables = mpi_starter(3, tmp_path)
    command = ("train.py", "--run-dir", tmp_path, "--name", "run", "--p", 1, *TINY)
    with started(tmp_path / "run", *command, starter=starter, **variables) as run:
        wait_until(
            lambda: any(maps(rank, "libmpi.so") for rank in run.processes() if rank.pid != run.launcher.pid),
            "the start of MPI",
        )
        run.launcher.send_signal(signal.SIGUSR1)
        end_within_limit(run)
        run.assert_gone()


# While it trains: an application that starts quickly


def fast(tmp_path, *settings, starter=()):
    return started(tmp_path / "none", TESTS / "faulty_application.py", tmp_path, "none", *settings, starter=starter)


def ignores(process, signum):
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    return bool(mask >> signum - 1 & 1)


def wait_for_another_checkpoint(run):
    before = len(run.events("checkpoint"))
    wait_until(lambda: len(run.events("checkpoint")) > before or run.launcher.poll() is not None, "a checkpoint")
    assert run.launcher.poll() is None, run.stderr()


@pytest.mark.parametrize("nodes", [1, 2])
def test_signal_that_was_ignored_at_the_start_stays_ignored_in_every_process(tmp_path, nodes):
    deaf = ("nohup", "sh", "-c", 'trap "" USR1; exec "$@"', "sh")
    with fast(tmp_path, f"cluster.nodes={nodes}", starter=deaf) as run:
        run.wait_for_checkpoint()
        processes = [process for process in run.processes() if process.name() != "prterun"]
        assert len(processes) >= 3 * nodes
        for process in processes:
            assert ignores(process, signal.SIGHUP), command_line(process)
            process.send_signal(signal.SIGHUP)
        run.launcher.send_signal(signal.SIGUSR1)
        wait_for_another_checkpoint(run)
        run.launcher.send_signal(signal.SIGTERM)
        assert end_within_limit(run) == 143
        run.assert_gone()
        assert run.events("stop")[-1]["message"] == "asked to stop"
        assert run.checkpoint().t > 0


@pytest.mark.parametrize(("nodes", "signum"), [(1, signal.SIGHUP), (2, signal.SIGUSR1)])
def test_signals_at_other_processes_than_the_launcher_change_nothing(tmp_path, nodes, signum):
    """Ctrl-C and warnings of batch systems reach every process of a group, or of a job."""
    with fast(tmp_path, f"cluster.nodes={nodes}") as run:
        run.wait_for_checkpoint()
        asked = {run.launcher.pid, run.job().pid, master(run)} | {rank.pid for rank in ranks(run)[:1]}
        others = [process for process in run.processes() if process.pid not in asked]
        assert len(others) >= 2 * nodes
        for process in others:
            for name in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                process.send_signal(name)
        for pid in asked - {run.launcher.pid, run.job().pid}:
            os.kill(pid, signal.SIGINT)
        wait_for_another_checkpoint(run)
        assert all(process.is_running() for process in others)
        run.launcher.send_signal(signum)
        assert end_within_limit(run) == 128 + signum
        run.assert_gone()
        assert run.checkpoint().t == run.events("stop")[-1]["global_steps"]


def test_second_signal_before_there_is_a_checkpoint_tells_the_truth(tmp_path):
    with fast(tmp_path, "output.checkpoint_every_s=60.0") as run:
        wait_until(lambda: run.events("training"), "training")
        run.job().suspend()
        for _ in range(2):
            run.launcher.send_signal(signal.SIGINT)
            time.sleep(0.5)  # two Ctrl-C by hand
        assert end_within_limit(run) == 130
        run.assert_gone()
        assert run.stderr().splitlines()[-1] == "SIGINT: stopped at once; there is no checkpoint"
