"""Slurm's batch file for one run: the hosts of the allocation become a file for ``--hosts``."""

from __future__ import annotations

import shlex
from pathlib import Path

from bench.paper.jobs import Job

_EXTRA_MINUTES = 15  # for the start of many ranks, and the end

_FILE = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={hosts}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={cores}
#SBATCH --time={time}
#SBATCH --output={folder}/{name}-%j.out
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
{more}set -eu
# Submit it from the project's folder, in its environment; both must have the same path on all hosts.
cd "$SLURM_SUBMIT_DIR"
mkdir -p {folder}
hosts={folder}/hosts-$SLURM_JOB_ID.txt
scontrol show hostnames "$SLURM_JOB_NODELIST" > "$hosts"
{alone}if ls {folder}/{name}/checkpoints/step-*.safetensors > /dev/null 2>&1; then
    exec {again} --hosts "$hosts"
fi
rm -rf {folder}/{name}  # stopped before it had anything to keep
exec {start} --hosts "$hosts"
"""

_ALONE = "sed -i '1s/$/ slots=0/' \"$hosts\"  # the master alone on the first\n"


def batch_file(job: Job, folder: Path | str, *, partition: str | None = None) -> str:
    """What ``sbatch`` takes; two minutes before its time is over the run writes a checkpoint and ends.

    Args:
        job: The run.
        folder: Of runs, relative to the project's.
        partition: Slurm's, if it must be named.
    """
    cores = job.p * -(-job.nodes // (job.hosts - int(job.master_alone)))  # where nodes share a host
    hours, minutes = divmod(round(job.minutes) + _EXTRA_MINUTES, 60)
    return _FILE.format(
        name=job.name,
        hosts=job.hosts,
        cores=cores,
        time=f"{hours:02}:{minutes:02}:00",
        folder=shlex.quote(str(folder)),
        more="" if partition is None else f"#SBATCH --partition={partition}\n",
        alone=_ALONE if job.master_alone else "",
        again=shlex.join(job.line(job.again(folder))),
        start=shlex.join(job.line(job.arguments(folder))),
    )
