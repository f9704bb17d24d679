"""The preflight on this machine, in real processes; over hosts it is in `tests/doctor/test_hosts.py`."""

import json
import os
import subprocess
import sys

import pytest

from hsa2c.commands import doctor
from tests.processes import REPOSITORY, TINY, environment, is_in_use, shared_memory

pytestmark = pytest.mark.timeout(200)


def examine(*options, starter=()):
    """Exit code, lines of stdout, stderr."""
    command = [*starter, sys.executable, "-m", "hsa2c", "doctor", *map(str, options), *TINY]
    run = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=150)
    return run.returncode, run.stdout.splitlines(), run.stderr


@pytest.mark.slow
def test_a_good_machine(tmp_path):
    before = shared_memory()
    code, lines, errors = examine("--nodes", 2, "--p", 1, "--B", "auto", "--run-dir", tmp_path / "some" / "runs")
    assert code == 0, (lines, errors)
    assert lines[-1] == "safe to start"
    levels = {line.split(":")[0].split(maxsplit=1)[1]: line.split()[0] for line in lines[:-1]}
    for check in ("ranks", "code", "versions", "game", "shared memory", "open files", "memory", "threads", "MPI"):
        assert levels[check] == "ok", lines
    for check in ("run directory", "disk", "actor-learners", "network", "exchanges", "speed", "B", "master"):
        assert levels[check] == "ok", lines
    assert any("survives the death of a rank (ULFM)" in line for line in lines)
    assert not list(tmp_path.iterdir())
    assert [name for name in shared_memory() - before if not is_in_use(name)] == []


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core cannot be pinned to fewer")
def test_what_spoils_a_run_is_found(tmp_path):
    """Pinned by taskset, few open files, no folder: each is a line with its cure, and the exit code says so."""
    (tmp_path / "file").touch()
    starter = ("prlimit", "--nofile=128", "taskset", "-c", "0")
    code, lines, errors = examine("--nodes", 40, "--run-dir", tmp_path / "file" / "runs", "--json", starter=starter)
    assert code == 1, errors
    found = json.loads(lines[-1])
    assert len(lines) == 1 and not found["safe"]
    problems = {each["check"]: (each["text"], each["cure"]) for each in found["findings"] if each["level"] == "problem"}
    assert set(problems) == {"open files", "cores", "run directory"}
    assert problems["open files"][0] == "the limit is 128, 206 wanted"
    assert problems["open files"][1].startswith("ulimit -n 4096")
    assert problems["cores"][0] == f"pinned to 1 of {os.cpu_count()}, which all processes share"
    assert problems["run directory"][0] == f"{tmp_path}/file/runs: cannot be written: Not a directory"
    crowded = [each["text"] for each in found["findings"] if (each["check"], each["level"]) == ("cores", "warning")]
    assert crowded == ["40 processes on 1 cores"]
    assert "problem  open files: the limit is 128, 206 wanted; ulimit -n 4096" in errors


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--game", "Pnog"], "game = 'Pnog': no such game; did you mean Pong or "),
        (["--hosts", "nowhere"], "nowhere: cannot be read: No such file or directory"),
        (["--nodes", "0"], "cluster.nodes = 0: must be greater than or equal to 1"),
        (["--B", "some"], "argument --B: 'some': must be a whole number, or auto (--help shows all options)"),
    ],
)
def test_bad_input_is_one_line(refused, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    said = refused(doctor.main, *arguments)
    assert said.startswith("hsa2c doctor: ")
    assert line in said


def test_not_under_mpiexec(refused, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "3")
    assert refused(doctor.main).startswith("hsa2c doctor: started by mpiexec")
