"""Whole runs in real processes, for tests: started, looked at, and gone at the end whatever happens."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from hsa2c.observe.runlog import read_rows
from hsa2c.run import checkpoint as checkpoints

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent
TINY = [
    *("--set", "agent={num_envs: 2, t_max: 5, passes: 1, minibatches: 1, precision: float32}"),
    *("--set", "optimiser.half_after=null"),  # `reference` knows no schedule
    *("--set", "output={log_every_s: 0.3, checkpoint_every_s: 1.0}"),
]
SHORT_GAMES = ("--set", "env={max_frames: 400, noop_max: 5}")
STEPS_PER_UPDATE = 10  # agent steps: 2 environments, 5 steps
PATIENCE_S = 100.0  # for what takes seconds on a machine that is not busy


@dataclass
class Run:
    """A training run in processes of its own, and all that belongs to it."""

    directory: Path
    launcher: subprocess.Popen
    shm_before: set

    def processes(self):
        """Every process of this run: they all have its directory, or the folder it is in, on their command line."""
        folders = {str(self.directory), str(self.directory.parent)}
        return [process for process in psutil.process_iter() if folders & set(command_line(process))]

    def job(self):
        """The launcher's child that trains, or that starts the ranks; None before it is there."""
        children = psutil.Process(self.launcher.pid).children()
        jobs = [child for child in children if "hsa2c.run.entry" in command_line(child)]  # not the janitor
        return jobs[0] if jobs else None

    def events(self, kind):
        path = self.directory / "journal.jsonl"
        return [row for row in read_rows(path) if row["kind"] == kind] if path.exists() else []

    def rows(self):
        return read_rows(self.directory / "metrics.jsonl")

    def checkpoint(self):
        """The newest one; that it loads is half the test."""
        return checkpoints.load_newest(self.directory / "checkpoints")[0]

    def wait_for_checkpoint(self):
        """Training goes on, and something is on disk."""
        wait_until(lambda: self.events("checkpoint") or self.launcher.poll() is not None, "a checkpoint")
        assert self.launcher.poll() is None, self.stderr()

    def stderr(self):
        return self.launcher.stderr_path.read_text()

    def end(self):
        """The launcher's exit code."""
        return self.launcher.wait(PATIENCE_S)

    def assert_gone(self):
        """No process and no shared memory is left."""
        wait_until(lambda: not self.processes(), "the end of every process", limit_s=30)
        wait_until(lambda: not self.left_in_shm(), "the removal of shared memory", limit_s=30)

    def left_in_shm(self):
        """New entries that belong to this run, or to nobody alive (other runs may be going on beside this test)."""
        new = {name for name in shared_memory() if name not in self.shm_before}
        return {name for name in new if f"-{self.launcher.pid}-" in name or not is_in_use(name)}

    def kill(self):
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.launcher.kill()
        self.launcher.wait()


def command_line(process):
    """Empty if it has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def master(run):
    """The master's process id: it has the journal open, and is not the launcher."""
    for process in run.processes():
        with contextlib.suppress(psutil.Error):
            if process.pid != run.launcher.pid and any("journal" in f.path for f in process.open_files()):
                return process.pid
    raise AssertionError("no master")


def shared_memory():
    prefixes = ("hsa2c-", "sm_segment", "torch_", "ompi", "vader")
    return {path.name for path in Path("/dev/shm").glob("*") if path.name.startswith(prefixes)}


def is_in_use(name):
    """Whether a process that lives made it (ours have its id in their name) or has it in its memory."""
    if name.startswith("hsa2c-"):
        return psutil.pid_exists(int(name.split("-")[1]))
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if name in maps.read_text():
                return True
    return False


def wait_until(condition, what, limit_s=PATIENCE_S):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.05)


def usual_signals():
    """In a child before its first instruction: where the tests run in a script's background, Ctrl-C is ignored."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(name, signal.SIG_DFL)


def environment(**more):
    """Nothing of a world of MPI, of a job, or of conftest's, that these tests themselves run in."""
    others = ("OMPI_", "PMI", "PRTE_", "SLURM_", "PBS_", "OMP_NUM_THREADS")  # a run sets that by itself
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return kept | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(REPOSITORY)])} | more


@contextlib.contextmanager
def started(directory, *command, starter=(), **variables):
    """A run that `command` starts, gone at the end whatever happens."""
    output = directory.parent / f"{directory.name}.out"
    errors = directory.parent / f"{directory.name}.err"
    before = shared_memory()
    with output.open("w") as out, errors.open("w") as err:
        launcher = subprocess.Popen(
            [*starter, sys.executable, *map(str, command)],
            cwd=REPOSITORY,
            env=environment(**variables),
            stdout=out,
            stderr=err,
            preexec_fn=usual_signals,
        )
    launcher.stdout_path, launcher.stderr_path = output, errors
    run = Run(directory, launcher, before)
    try:
        yield run
    finally:
        run.kill()


@contextlib.contextmanager
def training(tmp_path, *options, name="run"):
    """A training run, one node and one actor-learner if the options do not say otherwise."""
    command = ("train.py", "--run-dir", tmp_path, "--name", name, "--nodes", 1, "--p", 1, "--B", 2, *TINY, *options)
    with started(tmp_path / name, *command) as run:
        yield run


@contextlib.contextmanager
def resuming(directory, *options):
    with started(directory, "train.py", "--resume", directory, *options) as run:
        yield run
