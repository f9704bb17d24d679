"""``--slurm``: the same command line as a file for sbatch, in the run's directory; perhaps submitted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hsa2c.cluster import slurm
from hsa2c.cluster.allocation import ALLOCATION
from hsa2c.cluster.world import World
from hsa2c.errors import EXIT_DONE, ConfigError
from hsa2c.run.directory import CONFIG, Run
from hsa2c.words import CommandWords


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a batch job."""
    group = parser.add_argument_group("as a batch job of Slurm: nothing is trained here")
    group.add_argument(
        "--slurm",
        action="append",
        metavar="OPTION=VALUE,...",
        help="write the file for sbatch, with these of its long options, and show it: partition=long,time=1-00:00:00",
    )
    group.add_argument("--submit", action="store_true", help="and submit it")


def check(options: argparse.Namespace, world: World) -> None:
    """Whether a batch job can be made of this command line.

    Raises:
        ConfigError: It cannot.
    """
    if options.slurm is None:
        if options.submit:
            raise ConfigError("--submit: says nothing without --slurm partition=...,time=...")
        return
    if world.started_by_mpi:
        raise ConfigError("--slurm: this is a world of MPI already; type it where sbatch would be")
    if options.hosts is not None:
        raise ConfigError(f"--hosts {options.hosts}: Slurm chooses the hosts (--slurm nodelist=... of some)")
    slurm.parse(options.slurm)
    if options.submit:
        slurm.check_sbatch()


def write(options: argparse.Namespace, run: Run, words: CommandWords, typed: Sequence[str]) -> int:
    """Write the file, show it on stdout, and submit it if that was asked for; gives back the exit code.

    Args:
        options: What the command line says.
        run: The run that the job is to train; not open.
        words: The application's; they name the program.
        typed: The command line after the program.
    """
    cluster = run.config.cluster
    if cluster.hosts not in (None, ALLOCATION):
        raise ConfigError(f"cluster.hosts = {cluster.hosts!r}: Slurm chooses the hosts, must be null")
    if not options.resume and not options.go_on and (run.directory / CONFIG).exists():
        raise ConfigError(f"{run.directory}: exists; --resume {run.directory} goes on with it, --name starts another")
    job = slurm.BatchJob(
        nodes=cluster.nodes + cluster.spares,
        directory=run.directory,
        folder=Path.cwd(),
        program=words.program,
        command=[sys.executable, *_program(words), *_command(options, run, typed)],
    )
    text = slurm.batch_file(job, slurm.parse(options.slurm))
    try:
        run.directory.mkdir(parents=True, exist_ok=True)
        job.path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{job.path}: cannot be written: {error.strerror}") from None
    print(text, end="")
    sys.stdout.flush()
    said = slurm.submit(job.path) if options.submit else f"submit it with: sbatch {job.path}"
    print(f"written to {job.path}; {said}", file=sys.stderr)
    return EXIT_DONE


def _program(words: CommandWords) -> list[str]:
    """The program beside the package, or by a module's name where that is installed elsewhere."""
    script = Path(__file__).resolve().parents[2] / words.program
    return [str(script)] if script.exists() else list(words.python)


def _command(options: argparse.Namespace, run: Run, typed: Sequence[str]) -> list[str]:
    """The command line as it was typed, less what is about Slurm; and what lets it go on when it is started again."""
    kept, words = [], iter(typed)
    for word in words:
        if word == "--slurm":
            next(words, None)
        elif not word.startswith("--slurm=") and word != "--submit":
            kept.append(word)
    if options.resume:
        return kept
    if options.name is None:
        kept += ["--name", run.directory.name]
    return kept if options.go_on else [*kept, "--go-on"]
