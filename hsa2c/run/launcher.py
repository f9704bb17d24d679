"""Starts the job, shows its progress, passes signals on, and cleans up. No torch and no MPI in this process.

The launcher is the job's parent. mpiexec kills its ranks half a second after a Ctrl-C, so it runs in a session of its
own, and the first INT or TERM reaches the job as USR1: stop in good order. A second one ends it at once, and so does
the first while the job starts: there is nothing to save, and a rank may not hear yet. The kernel sends TERM to the job
when the launcher dies, even by kill -9. docs/reference/stopping.md has a table of all signals.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from hsa2c import application, interpreter, signals
from hsa2c.application import Application, at_node
from hsa2c.cluster import allocation, capacity, hosts, mpiexec
from hsa2c.cluster.hosts import Host
from hsa2c.cluster.loopback import confine
from hsa2c.cluster.machine import THREAD_CAPS, cap_threads
from hsa2c.cluster.mpiexec import mpi_starter
from hsa2c.cluster.sharing import cores_here
from hsa2c.cluster.world import EXIT_RECORD, MASTERS, World
from hsa2c.config.loading import to_dict
from hsa2c.config.protocol import RunConfig
from hsa2c.errors import EXIT_DONE, EXIT_NOT_STARTED, CheckpointError
from hsa2c.node.lifetime import begin_as_job
from hsa2c.observe.console import Console, Silence
from hsa2c.observe.runlog import Journal
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import exit_record
from hsa2c.run.begin import on_fewer_hosts
from hsa2c.run.ending import report
from hsa2c.run.fork_server import ADDRESS, fork_server
from hsa2c.run.forked import fork
from hsa2c.run.private_directory import private_directory
from hsa2c.run.supervisor import REFRESH_S, Job, Onlooker, Supervisor


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is to be started."""

    app: str
    asked: Mapping[str, Any]
    """What the run's user gave: a tree of plain values, for a restart on fewer hosts to be resolved from."""
    config: RunConfig
    directory: Path
    title: str
    resume_from: Path | None = None
    session: int = 1
    hosts: tuple[Host, ...] = ()
    """Where it runs, the master on the first; none: on this machine."""
    lock: int | None = None
    """File descriptor that keeps others out of the directory; the job holds it too, for it may outlive the launcher."""
    fresh: bool = False
    """Whether this start has made the directory: it is removed where a signal stops the start."""
    forked: bool = False
    """Whether the job is a copy of this process, which has code that no other finds; one node without hosts alone."""
    quiet: bool = False
    """Whether nothing is shown."""

    def arguments(self, run_id: int) -> list[str]:
        """A rank's, after the name of its module."""
        arguments = [
            *("--app", self.app),
            *("--config", json.dumps(to_dict(self.config))),
            *("--directory", str(self.directory.resolve())),
            *("--run-id", str(run_id)),
            *("--session", str(self.session)),
        ]
        if self.resume_from:
            arguments += ["--resume-from", str(self.resume_from.resolve())]
        if self.hosts:
            beside = hosts.beside(self.places, self.config.cluster.nodes)
            arguments += ["--beside", *map(str, beside)]
            own = hosts.processes(self.hosts, len(self.places))
            if any(own):
                arguments += ["--own-processes", *(str(p or 0) for p in own)]
        return arguments

    @property
    def places(self) -> list[str]:
        """The host of each node, spares among them; none on this machine."""
        return hosts.places(self.hosts, self.config.cluster.nodes + self.config.cluster.spares) if self.hosts else []

    @property
    def masters_at(self) -> list[str]:
        """The host of each master: one on each of the first; none on this machine."""
        masters = range(self.config.cluster.masters) if self.hosts else range(0)
        return [self.hosts[number % len(self.hosts)].name for number in masters]

    @property
    def over_mpi(self) -> bool:
        """Whether there are ranks; one node on this machine is one process with the master."""
        return self.config.cluster.nodes > 1 or bool(self.hosts)


def check(app: Application, config: RunConfig, world: World, *, force: bool = False) -> None:
    """That the ranks of a run will find each other, if it has any, and have room here; before anything is written.

    Args:
        app: The application.
        config: The run's.
        world: That this process is in.
        force: Whatever room there is.

    Raises:
        ConfigError: They will not.
    """
    listed = config.cluster.hosts
    if world.started_by_mpi:
        mpiexec.adopt()
    elif config.cluster.nodes > 1 or listed:
        mpiexec.check(several_hosts=listed is not None)
    there = allocation.hosts_of(listed) if listed else ()
    if not force and world.rank == 0:
        _check_room(app, config, world, there)
    if listed and listed != allocation.ALLOCATION:  # a batch system has seen that its hosts are there
        cluster = config.cluster
        hosts.check_answers(there, cluster.nodes + cluster.spares, cluster.masters, listed)


def _check_room(app: Application, config: RunConfig, world: World, there: Sequence[Host]) -> None:
    """That this host can hold its part."""
    cluster = config.cluster
    share = capacity.share_of(cluster, world, there)
    own = at_node(app, config, share.processes, nodes=max(1, share.nodes), cores=cores_here())
    spares = f" --spares {cluster.spares}" if cluster.spares else ""
    capacity.refuse(share, app.footprint(own), f"--nodes {cluster.nodes}{spares} --p {share.processes}")


def launch(what: Launch, onlooker: Onlooker | None = None) -> int:
    """Run the job to its end, and again from its newest checkpoint where it may, on the hosts that are left then; gives
    back the exit code for the shell.

    Args:
        what: The run.
        onlooker: Looks at its files meanwhile, and may end it.
    """
    supervisor = Supervisor(onlooker)
    restarts = what.config.cluster.restarts
    listed = what.config.cluster.hosts
    whole = what = replace(what, hosts=allocation.hosts_of(listed) if listed else ())
    while True:
        code = _launch_once(what, supervisor)
        if code in (EXIT_DONE, EXIT_NOT_STARTED) or supervisor.received:
            return report(code, supervisor, what.directory, session=what.session, fresh=what.fresh, quiet=what.quiet)
        left = _hosts_left(what, whole.hosts)
        again = _after(what, whole, left) if restarts > 0 and bool(left) == bool(whole.hosts) else None
        if again is None:
            return report(code, supervisor, what.directory, session=what.session, fresh=what.fresh, quiet=what.quiet)
        restarts -= 1
        what = again


def _hosts_left(what: Launch, everywhere: Sequence[Host]) -> tuple[Host, ...]:
    """The hosts that answer, after a failure; those that do not are told of."""
    left = hosts.answering(everywhere)
    lost = [host.name for host in everywhere if host not in left]
    if lost:
        with Journal(what.directory, session=what.session) as journal:
            for name in lost:
                journal.event("host_lost", f"host {name} does not answer", host=name)
                print(f"host lost: host {name} does not answer", file=sys.stderr)
    return left


def _after(what: Launch, whole: Launch, left: tuple[Host, ...]) -> Launch | None:
    """The same run from its newest good checkpoint; None if it has none that is newer than where it began.

    Args:
        what: The session that has failed.
        whole: The first one, with all hosts.
        left: The hosts that answer.
    """
    try:
        _, path, skipped = checkpoints.load_newest(what.directory / "checkpoints")
    except CheckpointError:
        return None
    if what.resume_from is not None and path.resolve() == what.resume_from.resolve():
        return None
    config, where = whole.config, ""
    if left != whole.hosts:
        app, before = application.load(what.app), config.cluster.nodes
        nodes = hosts.nodes_left(whole.hosts, left, before)
        if nodes == 0:  # what is left was to have the master alone
            return None
        config = on_fewer_hosts(app, whole.asked, config, nodes)
        where = f" on {', '.join(host.name for host in left)}, {config.cluster.nodes} of {before} nodes"
    with Journal(what.directory, session=what.session + 1) as journal:
        for line in skipped:
            journal.event("warning", line)
        journal.event("restart", f"the job failed; going on from {path.name}{where}", checkpoint=str(path))
    return replace(what, config=config, hosts=left, resume_from=path, session=what.session + 1)


def _launch_once(what: Launch, supervisor: Supervisor) -> int:
    """Run the job until it ends; gives back its exit code."""
    cluster = what.config.cluster
    ranks = cluster.masters + cluster.nodes + cluster.spares
    with supervisor.catching_signals(), contextlib.ExitStack() as stack:
        private = stack.enter_context(private_directory())
        log = stack.enter_context((what.directory / "log.txt").open("ab"))
        arguments = what.arguments(secrets.randbits(62))
        command = interpreter.command("hsa2c.run.entry", *arguments)
        places = [*what.masters_at, *what.places]
        environment = interpreter.environment(allocation.environment_for_mpiexec(places, os.environ))
        environment |= {"PYTHONIOENCODING": "utf-8:backslashreplace"}  # log.txt is UTF-8 whatever the locale
        environment |= dict.fromkeys(THREAD_CAPS, "1")
        # The master may be on another host, which has the run's directory, but not the private one.
        word = what.directory.resolve() / ".exit_record" if what.hosts else private / "exit_record"
        stack.callback(word.unlink, missing_ok=True)
        word.unlink(missing_ok=True)
        if what.over_mpi:
            starter, extra = mpi_starter(ranks, private, places)
            command = [*starter, *command]
            environment |= extra | {EXIT_RECORD: str(word), MASTERS: str(cluster.masters)}
            if not what.hosts or any(hosts.is_here(name) for name in what.places):
                environment |= {ADDRESS: stack.enter_context(fork_server(private, arguments, environment, log))}
        console = console_of(what)
        console.start()
        console.say(f"1 thread in each process ({', '.join(THREAD_CAPS)}, torch)")
        _say_what_starts(console, what)
        try:
            if what.forked:
                job: Job = fork(_be_job, arguments, dict.fromkeys(THREAD_CAPS, "1"), log)
            else:
                job = _start(command, environment, log, what.lock)
            ports = confine(job.pid, enough=supervisor.asked) if what.over_mpi and not what.hosts else []
            if ports:
                console.say(f"mpiexec listens on all interfaces, port {', '.join(map(str, ports))}", "yellow")
            code = supervisor.monitor(job, console, word, here=not what.hosts)
        finally:
            console.stop()
        return exit_record.outcome(word, code) if what.over_mpi else code


def _start(
    command: Sequence[str], environment: Mapping[str, str], log: IO[bytes], lock: int | None
) -> subprocess.Popen[bytes]:
    """Start the job, in a session of its own."""
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        pass_fds=() if lock is None else (lock,),
        preexec_fn=partial(begin_as_job, os.getpid()),  # noqa: PLW1509 - one thread here
    )


def _be_job(arguments: list[str]) -> int:
    from hsa2c.run import process as job

    return job.main(arguments)


def join(what: Launch, world: World) -> int:
    """Be one rank of a world that mpiexec or srun started; the master's also has the console."""
    cap_threads()
    from hsa2c.run import process as job

    arguments = what.arguments(_common_run_id(what.config))
    signals.to_default()  # until MPI has started, which hears no exception: else one would wait there for those that do
    if world.rank != 0:
        return job.main(arguments)
    console = console_of(what)
    console.start()
    _say_what_starts(console, what)
    done = threading.Event()

    def show() -> None:
        while not done.wait(REFRESH_S):
            console.update()

    viewer = threading.Thread(target=show, name="console", daemon=True)
    viewer.start()
    try:
        return job.main(arguments)
    finally:
        done.set()
        viewer.join()
        console.stop()


def _say_what_starts(console: Console, what: Launch) -> None:
    if words := application.load(what.app).starting(what.config):
        console.say(words)


def console_of(what: Launch) -> Console:
    """What shows the run to its user; it is not started yet."""
    app = application.load(what.app)
    masters = what.config.cluster.masters
    limits = app.limits(what.config)
    if what.config.stop.minutes is not None:
        limits["elapsed_s"] = 60 * what.config.stop.minutes
    return Console(
        what.directory,
        what.title + (f", {masters} masters" if masters > 1 else ""),
        app.shown(what.config),
        limits,
        curve=app.curve,
        nodes=what.config.cluster.nodes,
        session=what.session,
        view=Silence() if what.quiet else None,
    )


def _common_run_id(config: RunConfig) -> int:
    """A number all ranks of a world find by themselves, and other worlds hardly."""
    parts: dict[str, Any] = {name: os.environ.get(name) for name in ("PMIX_NAMESPACE", "SLURM_JOB_ID", "PBS_JOBID")}
    settings = to_dict(config)
    settings.pop("output")
    return zlib.crc32(json.dumps([parts, settings], sort_keys=True).encode())
