"""Starts the job, shows its progress, passes signals on, and cleans up. No torch and no MPI in this process.

The launcher is the job's parent. mpiexec kills its ranks half a second after a Ctrl-C, so it runs in a session of its
own, and the first INT or TERM reaches the job as USR1: stop in good order. A second one ends it at once. The kernel
sends TERM to the job when the launcher dies, even by kill -9.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from hsa2c import checkpoint as checkpoints
from hsa2c.config import to_dict
from hsa2c.console import Console
from hsa2c.dpsgd.lifetime import die_with_parent
from hsa2c.errors import EXIT_DONE, EXIT_FAILED, EXIT_NOT_STARTED, CheckpointError
from hsa2c.runlog import Journal
from hsa2c.runtime import allocation, application, hosts, mpiexec, rundir, verdict
from hsa2c.runtime.application import RunConfig
from hsa2c.runtime.host import THREAD_CAPS, cap_threads
from hsa2c.runtime.hosts import Host
from hsa2c.runtime.loopback import confine
from hsa2c.runtime.mpiexec import mpi_starter
from hsa2c.runtime.nursery import ADDRESS, nursery
from hsa2c.runtime.world import MASTERS, VERDICT, World

_REFRESH_S = 0.25
_LEAVE_S = 10.0  # from the master's verdict, or its death, to the end of all others
_GRACE_S = 120.0  # from the first signal to the end of patience; a stop takes seconds
_PRIVATE_PREFIX = "hsa2c-"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What is to be started."""

    app: str
    config: RunConfig
    directory: Path
    title: str
    resume_from: Path | None = None
    session: int = 1
    hosts: tuple[Host, ...] = ()
    """Where it runs, the master on the first; none: on this machine."""
    lock: int | None = None
    """File descriptor that keeps others out of the directory; the job holds it too, for it may outlive the launcher."""

    def command(self, run_id: int) -> list[str]:
        """A rank's command line."""
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
        return [sys.executable, "-m", "hsa2c.runtime.rank", *arguments]

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


def check(config: RunConfig, world: World) -> None:
    """That the ranks of a run will find each other, if it has any; before anything is written.

    Raises:
        ConfigError: They will not.
    """
    if world.started_by_mpi:
        mpiexec.adopt()
    elif config.cluster.nodes > 1 or config.cluster.hosts:
        mpiexec.check(several_hosts=config.cluster.hosts is not None)


def launch(what: Launch) -> int:
    """Run the job to its end, and again from its newest checkpoint where it may, on the hosts that are left then; gives
    back the exit code for the shell.
    """
    cap_threads()
    supervisor = _Supervisor()
    restarts = what.config.cluster.restarts
    listed = what.config.cluster.hosts
    whole = what = replace(what, hosts=allocation.hosts_of(listed) if listed else ())
    while True:
        code = _launch_once(what, supervisor)
        if code in (EXIT_DONE, EXIT_NOT_STARTED) or supervisor.received:
            return _report(code, supervisor, what.directory)
        left = _hosts_left(what, whole.hosts)
        again = _after(what, whole, left) if restarts > 0 and bool(left) == bool(whole.hosts) else None
        if again is None:
            return _report(code, supervisor, what.directory)
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
        config = rundir.with_nodes(app, config, nodes)
        where = f" on {', '.join(host.name for host in left)}, {config.cluster.nodes} of {before} nodes"
    with Journal(what.directory, session=what.session + 1) as journal:
        for line in skipped:
            journal.event("warning", line)
        journal.event("restart", f"the job failed; going on from {path.name}{where}", checkpoint=str(path))
    return replace(what, config=config, hosts=left, resume_from=path, session=what.session + 1)


def _launch_once(what: Launch, supervisor: _Supervisor) -> int:
    """Run the job until it ends; gives back its exit code."""
    cluster = what.config.cluster
    ranks = cluster.masters + cluster.nodes + cluster.spares
    with contextlib.ExitStack() as stack:
        private = stack.enter_context(private_directory())
        log = stack.enter_context((what.directory / "log.txt").open("ab"))
        command = what.command(secrets.randbits(62))
        # The job must find this package also where it is not installed and the user stands elsewhere.
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        places = [*what.masters_at, *what.places]
        environment = allocation.environment_for_mpiexec(places, os.environ)
        environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        # The master may be on another host, which has the run's directory, but not the private one.
        word = what.directory.resolve() / ".verdict" if what.hosts else private / "verdict"
        stack.callback(word.unlink, missing_ok=True)
        word.unlink(missing_ok=True)
        if what.over_mpi:
            arguments = command[3:]
            starter, extra = mpi_starter(ranks, private, places)
            command = [*starter, *command]
            environment |= extra | {VERDICT: str(word), MASTERS: str(cluster.masters)}
            if not what.hosts or any(hosts.is_here(name) for name in what.places):
                environment |= {ADDRESS: stack.enter_context(nursery(private, arguments, environment, log))}
        console = _console(what)
        console.start()
        console.say(f"1 thread in each process ({', '.join(THREAD_CAPS)}, torch)")
        try:
            with supervisor.catching_signals():
                job = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=() if what.lock is None else (what.lock,),
                    preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - one thread here
                )
                if what.over_mpi and not what.hosts and (ports := confine(job.pid)):
                    console.say(f"mpiexec listens on all interfaces, port {', '.join(map(str, ports))}", "yellow")
                code = supervisor.watch(job, console, word)
        finally:
            console.stop()
        return _verdict(word, code) if what.over_mpi else code


def _verdict(path: Path, code: int) -> int:
    """What the master said of the run, whatever mpiexec's exit code is."""
    said = verdict.given(path)
    return (code or EXIT_FAILED) if said is None else said


def join(what: Launch, world: World) -> int:
    """Be one rank of a world that mpiexec or srun started; the master's also has the console."""
    cap_threads()
    from hsa2c.runtime import job

    arguments = what.command(_common_run_id(what.config))[3:]
    if world.rank != 0:
        return job.main(arguments)
    console = _console(what)
    console.start()
    done = threading.Event()

    def show() -> None:
        while not done.wait(_REFRESH_S):
            console.update()

    viewer = threading.Thread(target=show, name="console", daemon=True)
    viewer.start()
    try:
        return job.main(arguments)
    finally:
        done.set()
        viewer.join()
        console.stop()


def _console(what: Launch) -> Console:
    app = application.load(what.app)
    masters = what.config.cluster.masters
    limits = app.limits(what.config)
    if what.config.stop.minutes is not None:
        limits["elapsed_s"] = 60 * what.config.stop.minutes
    return Console(
        what.directory,
        what.title + (f", {masters} masters" if masters > 1 else ""),
        app.fields,
        limits,
        curve=app.curve,
        nodes=what.config.cluster.nodes,
        session=what.session,
    )


@dataclass
class _Supervisor:
    """Watches one job and passes signals on to it."""

    received: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def catching_signals(self) -> Iterator[None]:
        def on_signal(signum: int, _: FrameType | None) -> None:
            self.received.append(signum)

        previous = {name: signal.signal(name, on_signal) for name in _SIGNALS}
        try:
            yield
        finally:
            for name, handler in previous.items():
                signal.signal(name, handler)

    def watch(self, job: subprocess.Popen[bytes], console: Console, word: Path) -> int:
        """Wait for the job; gives back its exit code.

        Once the master has given its verdict, or has died, the others have little time: mpiexec ends when they have,
        and may not notice.

        Args:
            job: What was started.
            console: What shows it.
            word: The file of the master's verdict.
        """
        passed = 0
        asked_at = ended_at = 0.0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = job.wait(_REFRESH_S)
                console.update()
                return code
            console.update()
            if len(self.received) > passed:
                passed = len(self.received)
                if asked_at:
                    return _end(job)
                asked_at = time.monotonic()
                name = signal.Signals(self.received[0]).name
                console.say(f"{name}: writing a checkpoint and stopping; once more to stop at once")
                job.send_signal(signal.SIGUSR1)
            elif verdict.given(word) is not None or verdict.master_is_gone(word):
                ended_at = ended_at or time.monotonic()
                if time.monotonic() - ended_at > _LEAVE_S:
                    return _end(job)
            elif asked_at and time.monotonic() - asked_at > _GRACE_S:
                console.say(f"no end after {_GRACE_S:.0f} s: killed")
                return _end(job)


def _end(job: subprocess.Popen[bytes]) -> int:
    """End a job now: TERM, so that mpiexec takes its ranks along, then KILL for the session."""
    job.terminate()
    try:
        return job.wait(3.0)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        return job.wait()


def _report(code: int, supervisor: _Supervisor, directory: Path) -> int:
    """The shell's exit code; says where to look if it is not a good one."""
    if supervisor.received:
        if len(supervisor.received) == 1 and code not in (EXIT_DONE, EXIT_NOT_STARTED):
            print(f"the job failed while it stopped; its output is in {directory / 'log.txt'}", file=sys.stderr)
        return 128 + supervisor.received[0]
    if code == EXIT_DONE:
        return EXIT_DONE
    if not _journal_tells_error(directory):
        tail = (directory / "log.txt").read_text(errors="replace").splitlines()[-20:]
        print(*tail, sep="\n", file=sys.stderr)
    print(f"the job failed (exit code {code}); its output is in {directory / 'log.txt'}", file=sys.stderr)
    return EXIT_FAILED


def _journal_tells_error(directory: Path) -> bool:
    try:
        last = (directory / "journal.jsonl").read_text().splitlines()[-3:]
    except OSError:
        return False
    return any('"kind": "error"' in line or '"kind":"error"' in line for line in last)


def _common_run_id(config: RunConfig) -> int:
    """A number all ranks of a world find by themselves, and other worlds hardly."""
    parts: dict[str, Any] = {name: os.environ.get(name) for name in ("PMIX_NAMESPACE", "SLURM_JOB_ID", "PBS_JOBID")}
    settings = to_dict(config)
    settings.pop("output")
    return zlib.crc32(json.dumps([parts, settings], sort_keys=True).encode())


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """A folder for MPI's shared memory and session files, gone afterwards whoever is killed.

    A tiny shell waits for the launcher's end and removes it; folders whose launcher and shell were both killed are
    removed here, by the next one.
    """
    base = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())  # noqa: S108
    for left in base.glob(f"{_PRIVATE_PREFIX}*"):
        owner = left.name.removeprefix(_PRIVATE_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)
    private = Path(tempfile.mkdtemp(prefix=f"{_PRIVATE_PREFIX}{os.getpid()}-", dir=base))
    janitor = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; sleep 2; rm -rf "$1"', "hsa2c-janitor", str(private)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield private
    finally:
        janitor.kill()
        janitor.wait()
        if janitor.stdin:
            janitor.stdin.close()
        shutil.rmtree(private, ignore_errors=True)
