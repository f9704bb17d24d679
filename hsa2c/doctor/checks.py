"""What facts mean for a run: each check is a function from what was seen to findings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hsa2c.application import Application
from hsa2c.cluster.allocation import less_in_allocation
from hsa2c.config.protocol import RunConfig
from hsa2c.doctor.facts import SHARED_MEMORY, Facts
from hsa2c.doctor.finding import Finding, gathered, ok, problem, warning
from hsa2c.doctor.remote_host import Site
from hsa2c.words import PreflightWords

Seen = Sequence[tuple[Site, Facts]]

_MIB, _GIB = 1 << 20, 1 << 30
_SEGMENT = 16 * _MIB  # of Open MPI's shared memory, for each rank; touched as far as messages need it
# Open files, as counted in runs: mpiexec had 30 with 3 ranks and 42 with 7, a master 20, a node 22 with one process.
_FILES, _FILES_MPIEXEC, _FILES_TCP, _FILES_PROCESS = 40, 4, 2, 2
_MASTER_BYTES = 300 * _MIB  # 218 as measured
_MOST_LOAD = 0.25  # of the cores
_MOST_SKEW_S = 1.0
_SLOW = 0.5  # of the others' median: of a network, of a processor
_LOG_BYTES = 100 * _MIB


def same_code(seen: Seen, here: str) -> list[Finding]:
    """Source files, by their hash."""
    return gathered(
        (
            problem(
                "code",
                f"differs from this host's ({facts.code}, here {here})",
                "let all hosts have the same files at the same path, as on a shared file system",
                site.name,
            )
            for site, facts in seen
            if facts.code != here
        ),
        ok("code", f"{here}{_everywhere(seen)}"),
    )


def same_versions(seen: Seen, here: Mapping[str, str | None]) -> list[Finding]:
    """Of Python and the packages."""

    def differs(facts: Facts) -> str:
        return ", ".join(
            f"{name} {facts.versions.get(name) or 'missing'} (here {version or 'missing'})"
            for name, version in here.items()
            if facts.versions.get(name) != version
        )

    have = ", ".join(f"{name} {version}" for name, version in here.items() if version)
    return gathered(
        (
            problem("versions", words, "install the same environment there: pip install -c constraints.txt", site.name)
            for site, facts in seen
            if (words := differs(facts))
        ),
        ok("versions", f"{have}{_everywhere(seen)}"),
    )


def application(seen: Seen, words: PreflightWords, name: str) -> list[Finding]:
    """What only the application needs; `name` is what it trains, in a word."""
    return gathered(
        (
            problem(words.needs, f"does not load: {facts.application_error}", words.cure, site.name)
            for site, facts in seen
            if facts.application_error
        ),
        ok(words.needs, f"{name} loads{_everywhere(seen)}"),
    )


def shared_memory(seen: Seen) -> list[Finding]:
    """Room for the messages between ranks of a host."""
    found = []
    for site, facts in seen:
        free, wanted = facts.shared_memory_bytes, _SEGMENT * site.ranks
        text = f"{free / _MIB:,.0f} MiB free in {SHARED_MEMORY}, {wanted / _MIB:,.0f} MiB wanted for {site.ranks} ranks"
        cure = f"give it more: docker run --shm-size={_gib(wanted)}g, or mount -o remount,size={_gib(wanted)}G"
        if not site.ranks or free >= wanted:
            continue
        found.append((problem if free < 2 * _SEGMENT else warning)("shared memory", text, cure, site.name))
    least = min(facts.shared_memory_bytes for _, facts in seen)
    return gathered(found, ok("shared memory", f"{least / _GIB:.1f} GiB{_at_least(seen)} free in {SHARED_MEMORY}"))


def open_files(seen: Seen, config: RunConfig) -> list[Finding]:
    """The limit on them, against what the largest process of a host needs."""
    cluster = config.cluster
    ranks = cluster.masters + cluster.nodes + cluster.spares
    found, most = [], 0
    for site, facts in seen:
        p = processes(site, facts, config) if site.nodes else 0
        mpiexec = _FILES_MPIEXEC * site.ranks + _FILES_TCP * len(seen)
        master = _FILES_TCP * ranks if site.masters and site.name else 0
        wanted = _FILES + max(mpiexec, master, _FILES_PROCESS * p)
        most = max(most, wanted)
        if facts.open_files < wanted:
            text = f"the limit is {facts.open_files}, {wanted} wanted"
            cure = f"ulimit -n {max(4096, wanted)} before the start, for good in /etc/security/limits.conf"
            found.append(problem("open files", text, cure, site.name))
    least = min(facts.open_files for _, facts in seen)
    return gathered(found, ok("open files", f"the limit is {least}{_at_least(seen)}, {most} wanted"))


def memory(seen: Seen, config: RunConfig, words: PreflightWords) -> list[Finding]:
    """Roughly: what an actor-learner was seen to have, times all of them."""
    found, most = [], (0.0, "")
    for site, facts in seen:
        if facts.trial is None:
            continue
        p = processes(site, facts, config)
        wanted = facts.trial.process_bytes * (site.nodes + site.spares) * p + _MASTER_BYTES * max(1, site.masters)
        text = f"about {wanted / _GIB:.1f} GiB wanted, {facts.memory_bytes / _GIB:.1f} GiB available"
        most = max(most, (wanted / max(1, facts.memory_bytes), text))
        if wanted > facts.memory_bytes:
            cure = f"fewer nodes or --p there{f', or {words.smaller}' if words.smaller else ''}"
            found.append(problem("memory", text, cure, site.name))
    return gathered(found, ok("memory", most[1] or "not known, for nothing could be tried"))


def threads(seen: Seen) -> list[Finding]:
    """One for each process, and not bound to a core that others are bound to as well."""
    found = []
    for site, facts in seen:
        others = [f"{name}={value}" for name, value in facts.threads.items() if value != "1"]
        if facts.torch_threads not in (None, 1):
            others.append(f"torch {facts.torch_threads}")
        if others:
            cure = "something sets them after the start, a sitecustomize.py perhaps: must be 1"
            found.append(problem("threads", ", ".join(others), cure, site.name))
        if facts.bound:
            words = ", ".join(f"{name}={value}" for name, value in facts.bound.items())
            found.append(warning("threads", f"bound to cores by {words}", f"unset {' '.join(facts.bound)}", site.name))
    return gathered(
        found, ok("threads", f"1 in each process (OMP_NUM_THREADS and its relatives, torch){_everywhere(seen)}")
    )


def cores(seen: Seen, config: RunConfig, *, p_given: bool) -> list[Finding]:
    """That there are as many as processes, and that no rank is pinned.

    Args:
        seen: The hosts.
        config: The run's.
        p_given: p was asked for: one process may be meant to have one core.
    """
    found, words = [], []
    for site, facts in seen:
        p = processes(site, facts, config)
        working = site.nodes * p
        words.append(f"{facts.cores} for {working} actor-learner{'s' if working != 1 else ''}")
        unpinned = "let nobody pin the ranks: no taskset, srun --cpu-bind=none, mpiexec --bind-to none"
        meant = p_given and working == 1
        if facts.cores_allowed == 1 < facts.cores_there and not meant:
            text = f"pinned to 1 of {facts.cores_there}, which all processes share"
            found.append(problem("cores", text, unpinned, site.name))
        elif facts.cores < facts.cores_allowed:
            text = f"{facts.cores} of {facts.cores_allowed} by the container's quota"
            found.append(warning("cores", text, "raise it (docker run --cpus), if this host's are meant", site.name))
        elif facts.cores_allowed < facts.cores_there and not meant:
            text = f"{facts.cores_allowed} of {facts.cores_there} by affinity"
            found.append(warning("cores", text, f"if all are meant, {unpinned}", site.name))
        if working > facts.cores:
            text = f"{working} processes on {facts.cores} cores"
            cure = f"fewer nodes there, or --p {max(1, facts.cores // max(1, site.nodes))}"
            found.append(warning("cores", text, cure, site.name))
    return gathered(found, ok("cores", f"{'; '.join(dict.fromkeys(words))}, not pinned"))


def load(seen: Seen) -> list[Finding]:
    """Whether somebody else works there."""
    worst = max(facts.load for _, facts in seen)
    return gathered(
        (
            warning(
                "load",
                f"{facts.load:.1f} in the last minute on {facts.cores_there} cores",
                "see in top who else works there: every node waits for its slowest process",
                site.name,
            )
            for site, facts in seen
            if facts.load > _MOST_LOAD * facts.cores_there
        ),
        ok("load", f"at most {worst:.1f} in the last minute"),
    )


def folder(seen: Seen, run_dir: str, not_seen: Sequence[Site]) -> list[Finding]:
    """That every host writes into the runs' folder, and that it is the same one.

    Args:
        seen: The hosts.
        run_dir: The folder.
        not_seen: Hosts whose file the launcher did not see.
    """
    found = []
    for site, facts in seen:
        if facts.sees_token is False:
            text, cure = f"{run_dir}: is not the launcher's", "must be on a file system that all hosts share"
            found.append(problem("run directory", text, f"{cure}, at the same path: --run-dir", site.name))
        elif facts.not_written:
            text, cure = f"{run_dir}: cannot be written: {facts.not_written}", "mount it writable there, or --run-dir"
            found.append(problem("run directory", text, cure, site.name))
        elif site in not_seen:
            text, cure = f"{run_dir}: what it writes is not seen here", "must be on a file system that all hosts share"
            found.append(problem("run directory", text, f"{cure}: --run-dir", site.name))
    return gathered(found, ok("run directory", f"{run_dir} is written{_everywhere(seen)}"))


def disk(seen: Seen, config: RunConfig) -> list[Finding]:
    """Room for checkpoints: v, the global step's velocity, every node's optimiser's state."""
    site, facts = seen[0]
    if facts.dim is None or facts.state_size is None or facts.disk_bytes is None:
        return []
    checkpoint = 4 * (2 * facts.dim + config.cluster.nodes * facts.state_size)
    wanted = (config.output.keep_checkpoints + 2) * checkpoint + _LOG_BYTES  # the best one, and one that is written
    each = f"{checkpoint / _MIB:,.0f} MiB a checkpoint"
    text = f"{facts.disk_bytes / _GIB:.1f} GiB free, {wanted / _GIB:.2f} GiB wanted ({each})"
    if facts.disk_bytes < wanted:
        return [problem("disk", text, "make room, or --run-dir elsewhere", site.name)]
    return [ok("disk", text)]


def trials(seen: Seen, app: Application, train: str) -> list[Finding]:
    """Actor-learners at work, on every host that has nodes."""
    tried = [(site, facts) for site, facts in seen if site.nodes and not facts.application_error]
    found = [
        problem(
            "actor-learners",
            (facts.trial_error or "said nothing").removeprefix("actor-learners "),
            f"try it there alone: {train} --p 1",
            site.name,
        )
        for site, facts in tried
        if facts.trial is None
    ]
    speeds = {site.name: facts.trial.updates_per_s / facts.trial.processes for site, facts in tried if facts.trial}
    if not speeds:
        return gathered(found, ok("actor-learners", "none tried"))
    found += [
        warning(
            "actor-learners",
            f"{speed:.1f} updates/s for each process, the others' median {others:.1f}",
            "see in top who else works there; a slow node costs little, with --exchange synchronous all wait for it",
            name,
        )
        for name, speed in speeds.items()
        if speed < _SLOW * (others := _of_others(speeds, name))
    ]
    tries = [(site, facts.trial) for site, facts in tried if facts.trial]
    made = sum(trial.updates_per_s * trial.work_per_update for _, trial in tries)
    all_of_them = sum(trial.processes for _, trial in tries)
    update_ms = 1000 / statistics.median(speeds.values())
    fine = f"{made:,.0f} {app.pictures.unit}/s of {all_of_them} without a master, {update_ms:.1f} ms an update"
    return gathered(found, ok("actor-learners", fine))


def clocks(links: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """How far apart they are, within an error."""
    words = {name: (link["ahead_s"], link["ahead_error_s"]) for name, link in links.items()}
    worst = max(words.values(), key=lambda each: abs(each[0]), default=(0.0, 0.0))
    return gathered(
        (
            warning(
                "clock",
                f"{ahead:+.2f} s from the master's, give or take {1000 * error:.1f} ms",
                "run an NTP client there (chronyc makestep): the times of logs and files mislead",
                name,
            )
            for name, (ahead, error) in words.items()
            if abs(ahead) > _MOST_SKEW_S
        ),
        ok("clock", f"at most {1000 * abs(worst[0]):.1f} ms apart, give or take {1000 * worst[1]:.1f} ms"),
    )


def network(links: Mapping[str, Mapping[str, Any]], at_master: str, vector_bytes: int) -> list[Finding]:
    """Latency and bandwidth between the master and each host.

    Args:
        links: By the host's name.
        at_master: The master's own, where messages go through memory.
        vector_bytes: Of v.
    """
    far = {name: link for name, link in links.items() if name != at_master} or links
    trips = {name: link["trip_s"] for name, link in far.items()}
    found = [
        warning(
            "network",
            f"{_trip(far[name], vector_bytes)}, the others' median {1000 * others:.1f} ms",
            "see ethtool and the switch's port; OMPI_MCA_btl_tcp_if_include chooses a network",
            name,
        )
        for name, trip_s in trips.items()
        if trip_s * _SLOW > (others := _of_others(trips, name))
    ]
    slowest = max(far.values(), key=lambda link: float(link["trip_s"]))
    return gathered(found, ok("network", f"{_trip(slowest, vector_bytes)}{' at most' if len(far) > 1 else ''}"))


def _of_others(values: Mapping[str, float], name: str) -> float:
    """Median of all but one; that one, if there is no other."""
    return statistics.median([value for other, value in values.items() if other != name] or [values[name]])


def bytes_per_s(link: Mapping[str, Any], vector_bytes: int) -> float:
    """Bandwidth, from the time of a vector there and back, that of an empty message left out."""
    trip_s: float = link["trip_s"]
    return float(2 * vector_bytes / max(trip_s - 2 * link["latency_s"], 0.1 * trip_s))


def _trip(link: Mapping[str, Any], vector_bytes: int) -> str:
    speed = bytes_per_s(link, vector_bytes)
    return (
        f"{vector_bytes / 1e6:.1f} MB there and back in {1000 * link['trip_s']:.1f} ms"
        f" ({8 * speed / 1e9:.2g} Gbit/s, latency {1000 * link['latency_s']:.2f} ms)"
    )


def processes(site: Site, facts: Facts, config: RunConfig) -> int:
    """P of a node on this host."""
    less = less_in_allocation(config.cluster)
    return site.own_processes or config.cluster.processes or max(1, facts.cores // max(1, site.nodes) - less)


def _gib(size: int) -> int:
    return -(-size // _GIB)


def _everywhere(seen: Seen) -> str:
    return f", on {len(seen)} hosts" if len(seen) > 1 else ""


def _at_least(seen: Seen) -> str:
    return " or more" if len(seen) > 1 else ""
