"""What facts mean: each check against facts made by hand, for what cannot be brought about on a machine of tests."""

import dataclasses

import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.cluster.machine import THREAD_CAPS
from hsa2c.doctor import checks
from hsa2c.doctor.facts import Facts, Trial
from hsa2c.doctor.finding import Level, safe
from hsa2c.doctor.remote_host import Site

GIB = 1 << 30
GOOD = Facts(
    host="a",
    code="c0de",
    versions={"Python": "3.11.7", "torch": "2.13.0"},
    cores_there=4,
    cores_allowed=4,
    cores=4,
    load=0.1,
    threads=dict.fromkeys(THREAD_CAPS, "1"),
    bound={},
    shared_memory_bytes=GIB,
    memory_bytes=8 * GIB,
    open_files=1024,
    disk_bytes=100 * GIB,
    sees_token=True,
    not_written=None,
    torch_threads=1,
    dim=676_000,
    state_size=2 * 676_000 + 1,
    trial=Trial(processes=4, updates_per_s=400.0, work_per_update=48.0, process_bytes=GIB // 4),
)
LINK = {"latency_s": 1e-4, "trip_s": 0.0452, "ahead_s": 0.002, "ahead_error_s": 0.0001}


def config(**cluster):
    return APPLICATION.build_config({"cluster": cluster})


def seen(*changes, nodes=1):
    """A host for each, with these facts; the first has the master."""
    names = "abcdefgh"[: len(changes)]
    return [
        (Site(name=name, nodes=nodes, masters=int(name == "a")), dataclasses.replace(GOOD, **change))
        for name, change in zip(names, changes, strict=True)
    ]


def line(found):
    """The one finding: its level and its line."""
    (finding,) = found
    return finding.level, finding.line()


def test_hosts_that_have_the_same_are_one_line():
    level, text = line(checks.same_code(seen({}, {"code": "01d"}, {"code": "01d"}), "c0de"))
    assert level is Level.PROBLEM
    assert text.startswith("b, c, code: differs from this host's (01d, here c0de); let all hosts have the same files")
    assert line(checks.same_code(seen({}, {}), "c0de")) == (Level.OK, "code: c0de, on 2 hosts")


def test_versions():
    there = {"versions": {"Python": "3.11.7", "torch": None}}
    level, text = line(checks.same_versions(seen({}, there), GOOD.versions))
    assert (level, text.partition(";")[0]) == (Level.PROBLEM, "b, versions: torch missing (here 2.13.0)")


@pytest.mark.parametrize(
    ("free_mib", "ranks", "level"),
    [(31, 2, Level.PROBLEM), (64, 8, Level.WARNING), (64, 4, Level.OK), (0, 0, Level.OK)],
)
def test_shared_memory(free_mib, ranks, level):
    """A container's 64 MiB are enough for 4 ranks; for more they may be, and below two segments no rank can start."""
    site = Site(name="a", nodes=ranks)
    facts = dataclasses.replace(GOOD, shared_memory_bytes=free_mib << 20)
    assert line(checks.shared_memory([(site, facts)]))[0] is level


def test_open_files_of_a_master_of_many_hosts():
    many = seen(*[{}] * 8, nodes=100)
    assert line(checks.open_files(many, config(nodes=800)))[1] == (
        "a, open files: the limit is 1024, 1642 wanted; ulimit -n 4096 before the start, for good in"
        " /etc/security/limits.conf"
    )


def test_memory_is_what_was_measured_times_processes():
    assert line(checks.memory(seen({}, nodes=2), config(processes=4), APPLICATION.preflight))[0] is Level.OK
    level, text = line(
        checks.memory(seen({"memory_bytes": 2 * GIB}, nodes=2), config(processes=4), APPLICATION.preflight)
    )
    assert level is Level.PROBLEM
    assert text.startswith("a, memory: about 2.3 GiB wanted, 2.0 GiB available; fewer nodes or --p there")


def test_threads():
    assert line(checks.threads(seen({}, {"torch_threads": 4})))[1].startswith("b, threads: torch 4; ")
    level, text = line(checks.threads(seen({"bound": {"OMP_PROC_BIND": "true"}})))
    assert (level, text) == (Level.WARNING, "a, threads: bound to cores by OMP_PROC_BIND=true; unset OMP_PROC_BIND")


@pytest.mark.parametrize(
    ("facts", "cluster", "p_given", "level", "text"),
    [
        ({}, {}, False, Level.OK, "cores: 4 for 4 actor-learners, not pinned"),
        ({"cores_allowed": 1, "cores": 1}, {}, False, Level.PROBLEM, "a, cores: pinned to 1 of 4"),
        ({"cores_allowed": 1, "cores": 1}, {"processes": 1}, True, Level.OK, "cores: 1 for 1 actor-learner"),
        ({"cores_allowed": 2, "cores": 2}, {}, False, Level.WARNING, "a, cores: 2 of 4 by affinity; "),
        ({"cores": 3}, {}, False, Level.WARNING, "a, cores: 3 of 4 by the container's quota; "),
        ({}, {"processes": 6}, True, Level.WARNING, "a, cores: 6 processes on 4 cores; fewer nodes there, or --p 4"),
    ],
)
def test_cores(facts, cluster, p_given, level, text):
    found = line(checks.cores(seen(facts), config(**cluster), p_given=p_given))
    assert found[0] is level
    assert found[1].startswith(text)


def test_load_and_disk():
    assert line(checks.load(seen({}, {"load": 1.5})))[1].startswith("b, load: 1.5 in the last minute on 4 cores; ")
    assert line(checks.disk(seen({"disk_bytes": 10 << 20}), config()))[0] is Level.PROBLEM
    assert line(checks.disk(seen({}), config()))[1] == ("disk: 100.0 GiB free, 0.15 GiB wanted (10 MiB a checkpoint)")


def test_folder_that_shows_the_launchers_file_and_hides_its_own():
    hosts = seen({}, {}, {"sees_token": False})
    found = checks.folder(hosts, "/runs", [hosts[1][0], hosts[2][0]])
    assert [finding.line().partition(";")[0] for finding in found] == [
        "b, run directory: /runs: what it writes is not seen here",
        "c, run directory: /runs: is not the launcher's",
    ]
    assert not safe(found)


def test_slow_host_is_named():
    slow = dataclasses.replace(GOOD.trial, updates_per_s=100.0)
    level, text = line(checks.trials(seen({}, {}, {"trial": slow}), APPLICATION, "train.py"))
    assert level is Level.WARNING
    assert text.startswith("c, actor-learners: 25.0 updates/s for each process, the others' median 100.0; ")
    level, text = line(
        checks.trials(seen({}, {"trial": None, "trial_error": "not ready after 45 s"}), APPLICATION, "train.py")
    )
    assert (level, text.partition(";")[0]) == (Level.PROBLEM, "b, actor-learners: not ready after 45 s")


def test_network_and_clocks():
    size = 2_704_000
    links = {"a": {**LINK, "trip_s": 0.002}, "b": LINK, "c": LINK, "d": {**LINK, "trip_s": 0.4, "ahead_s": -7.0}}
    # 45 ms without two latencies of an empty message, for 2 x 2.7 MB: 0.96 Gbit/s.
    assert checks.bytes_per_s(LINK, size) == pytest.approx(2 * size / 0.045)
    level, text = line(checks.network(links, "a", size))
    assert level is Level.WARNING
    assert text.startswith("d, network: 2.7 MB there and back in 400.0 ms (0.11 Gbit/s, latency 0.10 ms), the others'")
    assert line(checks.network({"a": LINK, "b": LINK}, "a", size))[1] == (
        "network: 2.7 MB there and back in 45.2 ms (0.96 Gbit/s, latency 0.10 ms)"
    )
    assert line(checks.clocks(links))[1].startswith("d, clock: -7.00 s from the master's, give or take 0.1 ms; ")
    assert line(checks.clocks({"b": LINK}))[1] == "clock: at most 2.0 ms apart, give or take 0.1 ms"
