"""An experiment as it was published: its commands and Slurm files, and its runs where there are hosts for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.paper.jobs import Job, complete, finished, say
from bench.paper.slurm import batch_file
from hsa2c.cluster import hosts as host_files
from hsa2c.errors import ConfigError


def write(jobs: Sequence[Job], output: Path, folder: Path, partition: str | None) -> None:
    """Write `output`/commands.txt, a line for each run, and a Slurm file for each, with one to submit them all."""
    output.mkdir(parents=True, exist_ok=True)
    lines = []
    for job in jobs:
        path = output / f"{job.name}.sbatch"
        path.write_text(batch_file(job, folder, partition=partition))
        lines.append(f"sbatch {path}\n")
    (output / "commands.txt").write_text("".join(f"{job.text(folder)}\n" for job in jobs))
    (output / "submit.sh").write_text("#!/bin/sh\nset -e\n" + "".join(lines))
    hours = sum(job.minutes for job in jobs) / 60
    most = max(job.hosts for job in jobs)
    say(f"{output}: {len(jobs)} runs, {hours:,.0f} hours one after the other, at most {most} hosts at a time")


def at_hand(file: Path | None) -> list[str]:
    """Names of the hosts that runs may be started on: of a file, else of the allocation that this process is in."""
    if file is not None:
        return [host.name for host in host_files.read(file)]
    if "SLURM_JOB_NODELIST" in os.environ:
        command = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    if "PBS_NODEFILE" in os.environ:
        return list(dict.fromkeys(Path(os.environ["PBS_NODEFILE"]).read_text().split()))
    return []


def run(jobs: Sequence[Job], folder: Path, names: Sequence[str]) -> None:
    """Run those that these hosts are enough for and that are not finished, one after the other."""
    for number, job in enumerate(jobs, 1):
        if finished(folder / job.name):
            continue
        if job.hosts > len(names):
            say(f"{number} of {len(jobs)}: {job.name}: needs {job.hosts} hosts, {len(names)} are here")
            continue
        say(f"{number} of {len(jobs)}: {job.name}")
        complete(job, folder, host_file(job, folder, names))


def host_file(job: Job, folder: Path, names: Sequence[str]) -> Path:
    """A file of as many hosts as a run needs."""
    if job.hosts > len(names):
        raise ConfigError(f"{job.name}: needs {job.hosts} hosts, {len(names)} are here")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"hosts-{job.hosts}{'-alone' if job.master_alone else ''}.txt"
    slots = [" slots=0" if job.master_alone and number == 0 else "" for number in range(job.hosts)]
    path.write_text("".join(f"{name}{each}\n" for name, each in zip(names, slots, strict=False)))
    return path
