"""What a host can hold, asked with limits that are made up; the sizes that must pass were run."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.cluster import capacity, control_groups
from hsa2c.cluster.capacity import Footprint, Limit, Share
from hsa2c.cluster.hosts import Host
from hsa2c.cluster.world import World
from hsa2c.errors import ConfigError
from hsa2c.run import launcher as launch
from tests.processes import REPOSITORY, environment

GIB = 1 << 30
ALONE = World(0, 1, started_by_mpi=False)
SMALL = Footprint(memory_bytes=1, tasks=1)


@pytest.fixture
def room(monkeypatch):
    """Sets what is left, and lets a run be checked."""

    def check(*there, gib=10**6, tasks=10**9, cores=2, **cluster):
        monkeypatch.setattr(capacity, "memory_limits", lambda: [Limit(int(gib * GIB), "MemAvailable")])
        monkeypatch.setattr(capacity, "task_limits", lambda: [Limit(tasks, "ulimit -u, 100")])
        monkeypatch.setattr("hsa2c.run.launcher.cores_here", lambda: cores)
        monkeypatch.setattr("resource.getrlimit", lambda _: (10**6, 10**6))
        monkeypatch.setattr("hsa2c.cluster.mpiexec.check", lambda **_: None)
        monkeypatch.setattr("hsa2c.cluster.allocation.hosts_of", lambda _: there)
        monkeypatch.setattr("hsa2c.cluster.hosts.check_answers", lambda *_: None)
        listed = {"hosts": "listed"} if there else {}
        launch.check(APPLICATION, APPLICATION.build_config({"cluster": cluster | listed}), ALONE)

    return check


@pytest.mark.parametrize(
    ("gib", "cores", "cluster"),
    [
        (8, 2, {"nodes": 40, "processes": 1}),
        (24, 2, {"nodes": 4, "processes": 28}),
        (24, 28, {"nodes": 4, "processes": 28}),
        (1.3, 2, {"nodes": 1, "processes": 2}),
        (32, 40, {"nodes": 40, "processes": 1}),
    ],
)
def test_what_fits_is_not_refused(room, gib, cores, cluster):
    room(gib=gib, cores=cores, tasks=1000, **cluster)


@pytest.mark.parametrize(
    ("limits", "named"), [({"gib": 100}, "GiB of memory"), ({"tasks": 100_000}, "processes and threads")]
)
def test_what_cannot_fit_is_one_line_that_names_the_limit(room, limits, named):
    with pytest.raises(ConfigError) as error:
        room(nodes=100_000, processes=1, **limits)
    text = str(error.value)
    assert named in text and "--nodes 100000 --p 1" in text and "--force" in text
    assert "MemAvailable" in text or "ulimit -u" in text
    assert len(text.splitlines()) == 1


def test_force_tries_all_the_same(monkeypatch):
    monkeypatch.setattr("hsa2c.cluster.mpiexec.check", lambda **_: None)
    config = APPLICATION.build_config({"cluster": {"nodes": 100_000, "processes": 1024}})
    with pytest.raises(ConfigError):
        launch.check(APPLICATION, config, ALONE)
    launch.check(APPLICATION, config, ALONE, force=True)


def test_only_what_is_on_this_host_counts(room):
    here, other = Host(os.uname().nodename), Host("elsewhere")
    room(other, nodes=4000, processes=28, gib=2)
    with pytest.raises(ConfigError):
        room(other, here, nodes=4000, processes=28, gib=2)


def test_soft_limit_on_open_files_is_raised_where_it_may_be(monkeypatch):
    limits = [1024, 4096]
    monkeypatch.setattr("resource.getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr("resource.setrlimit", lambda _, new: limits.__setitem__(slice(None), new))
    capacity.refuse(Share(nodes=1, processes=1, ranks=600, over_mpi=True), SMALL, "run")
    assert 1800 < limits[0] <= 2000 and limits[1] == 4096
    with pytest.raises(ConfigError, match=r"needs at least 6,025 open files .* 4,096 left \(ulimit -n, 4,096\)"):
        capacity.refuse(Share(nodes=1, processes=1, ranks=2000, over_mpi=True), SMALL, "run")


def test_limits_of_control_groups(tmp_path, monkeypatch):
    for name, text in {
        "memory.max": "1000000000\n",
        "memory.current": "700000000\n",
        "memory.stat": "anon 5\ninactive_file 100000000\nactive_file 50000000\n",
        "pids.max": "max\n",
        "pids.current": "12\n",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(control_groups, "folders", lambda _: [tmp_path])
    assert Limit(450_000_000, "cgroup memory.max, 0.9 GiB") in capacity.memory_limits()
    assert not any("pids" in limit.name for limit in capacity.task_limits()), "max is no limit"
    (tmp_path / "pids.max").write_text("20\n")
    assert Limit(8, "cgroup pids.max, 20") in capacity.task_limits()


def test_this_machine_has_room():
    assert all(limit.left > 0 for limit in capacity.memory_limits() + capacity.task_limits())
    assert capacity.tasks_of(os.getuid()) >= 1


@pytest.mark.parametrize("application", [["train.py"], ["-m", "examples.lda"]])
def test_nothing_is_written_or_started_where_there_are_too_few_open_files(application, tmp_path):
    """With a real limit."""
    command = [sys.executable, *application, "--nodes", "3", "--p", "1", "--run-dir", str(tmp_path / "runs")]
    run = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2, run.stderr
    assert "ulimit -n, 24" in run.stderr and len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
