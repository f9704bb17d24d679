import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from hsa2c.cluster import machine as host


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of so many cores, with what the kernel says of the container's quota."""

    def machine(cores, cpu_max=None):
        monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
        monkeypatch.setattr(host.os, "sched_getaffinity", lambda _: set(range(cores)))
        path = tmp_path / "cpu.max"
        path.unlink(missing_ok=True)
        if cpu_max is not None:
            path.write_text(cpu_max)
        monkeypatch.setattr(host.control_groups, "folders", lambda _: [tmp_path, tmp_path / "above"])

    return machine


@pytest.mark.parametrize(
    ("cores", "cpu_max", "usable"),
    [
        (8, None, 8),
        (8, "max 100000\n", 8),
        (8, "200000 100000\n", 2),
        (8, "150000 100000\n", 2),
        (8, "50000 100000\n", 1),
        (2, "800000 100000\n", 2),
        (8, "nonsense", 8),
        (8, "", 8),
        (1, None, 1),
    ],
)
def test_cores_are_those_of_affinity_and_quota(machine, cores, cpu_max, usable):
    machine(cores, cpu_max)
    assert host.cores() == usable


def test_the_least_quota_of_all_groups_counts(machine, tmp_path):
    machine(8, "600000 100000")
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "cpu.max").write_text("300000 100000\n")
    assert host.cores() == 3
    (tmp_path / "above" / "cpu.max").unlink()
    for quota, usable in {"400000\n": 4, "-1\n": 6}.items():  # of version 1
        (tmp_path / "above" / "cpu.cfs_quota_us").write_text(quota)
        (tmp_path / "above" / "cpu.cfs_period_us").write_text("100000\n")
        assert host.cores() == usable


@pytest.mark.parametrize(("given", "usable"), [("3", 3), ("16", 8), ("0", 1), ("", 8), ("x", 8)])
def test_cores_are_those_that_slurm_gave(machine, monkeypatch, given, usable):
    """It need not bind processes to them."""
    machine(8)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", given)
    assert host.cores() == usable


def test_nodes_on_one_host_share_its_cores(machine):
    machine(8)
    assert [host.share_of_cores(nodes) for nodes in (1, 2, 3, 8, 40)] == [8, 4, 2, 1, 1]
    assert [host.share_of_cores(nodes, less=1) for nodes in (1, 2, 3, 8, 40)] == [7, 3, 1, 1, 1]


def test_threads_are_capped_whatever_the_user_has_set(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    for name in host.THREAD_CAPS[1:]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    host.cap_threads()
    assert {name: host.os.environ[name] for name in host.THREAD_CAPS} == dict.fromkeys(host.THREAD_CAPS, "1")
    assert {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"} <= set(host.THREAD_CAPS)


def test_about_says_with_what_a_run_was_made():
    about = host.about()
    assert yaml.safe_load(yaml.safe_dump(about)) == about
    assert json.dumps(about)
    assert about["packages"].keys() >= {"hsa2c", "torch", "mpi4py", "pydantic"}
    assert about["packages"]["torch"]
    assert about["packages"]["numpy"] == np.__version__
    assert about["cores"] >= 1
    assert about["processor"]
    assert about["command"]


def test_package_that_is_not_installed_has_no_version():
    assert host.version("no-such-package-at-all") is None


@pytest.mark.parametrize("changed", ["", " M hsa2c/config/loading.py"])
def test_commit_is_marked_where_files_differ_from_it(monkeypatch, changed):
    answers = {"ls-files": "host.py", "rev-parse": "abc123", "status": changed}
    monkeypatch.setattr(host, "git", lambda command, *_: answers[command])
    assert host.commit() == "abc123" + ("+" if changed else "")


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.CalledProcessError(128, "git")])
def test_no_commit_outside_a_checkout(monkeypatch, error):
    def git(*_):
        raise error

    monkeypatch.setattr(host, "git", git)
    assert host.commit() is None


def test_freed_memory_is_kept():
    """Page faults of ten blocks of 4 MB, ten times over: 10,000 a time, or only the first's."""
    script = """
import resource, sys
import numpy as np
from hsa2c.cluster import machine as host
if sys.argv[1] == "keep":
    assert host.keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    blocks = [np.ones(1_000_000, np.float32) for _ in range(10)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        mode: int(subprocess.check_output([sys.executable, "-c", script, mode], text=True, timeout=60))
        for mode in ("keep", "give back")
    }
    assert faults["keep"] < 20_000
    assert faults["keep"] < faults["give back"] / 3


def test_an_allocator_that_is_not_glibc_is_left_alone(monkeypatch):
    monkeypatch.setattr(host.ctypes, "CDLL", lambda _: object())
    assert not host.keep_freed_memory()
