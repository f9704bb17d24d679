"""A run as a batch job of Slurm: the file that sbatch takes, and its submission.

The job stops before its time is up, goes back into the queue, and goes on from its checkpoint in the same directory.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsa2c.cluster.machine import THREAD_CAPS
from hsa2c.cluster.programs import ask
from hsa2c.errors import ConfigError, HSA2CError

_NOTICE_S = 120  # of the time limit: a stop takes seconds, and Slurm may give notice up to a minute earlier
_SUBMIT_S = 120.0
_EXIT_NOTICE = 138  # what the launcher ends with after USR1

_PART = re.compile(r'(?:[^,"\[\]]|"[^"]*"|\[[^\[\]]*\])+')
_KEY = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_VALUE = re.compile(r"[A-Za-z0-9 ._:/,@%+=*&|()!~^\[\]-]+")
_PLAIN = re.compile(r"[A-Za-z0-9._:/,@%+=*\[\]-]+")
_SIGNAL = re.compile(r"B:(?:SIG)?USR1@(\d{1,5})")
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")

#: Options that would make another job of it, and why not.
_REFUSED = {
    "array": "all its tasks would train in one directory",
    "chdir": "the job runs in the folder that this command was typed in",
    "wrap": "the file has its own command",
    "ntasks": "there is one task on each node, and their number is --nodes",
    "tasks-per-node": "there is one task on each node",
}

#: Whoever gives one of these has said how much of a node is wanted; else it is all of it.
_SHARES = {"cpus-per-task", "exclusive", "oversubscribe", "share", "mincpus", "cpus-per-gpu"}

_SCRIPT = """\
#!/bin/bash
# {name} on {nodes}, written by {program}; sbatch takes it.
{options}

cd {folder} || exit 2
{caps}

# A rank on each node, with as many actor-learners as the job has cores there, less one (--p says otherwise; of one node
# alone all cores). Slurm sends USR1 to this shell {notice_s} s before the time is up: the run writes a checkpoint and
# ends with {exit_notice}. TERM (scancel) ends it with 143.
stop() {{ kill -s "$1" "$training"; }}
trap 'stop USR1' USR1
trap 'stop TERM' TERM

{command} &
training=$!
# A signal ends a wait, but not what is waited for.
until wait "$training"; code=$?; ! kill -0 "$training" 2>/dev/null; do :; done
{requeue}
exit "$code"
"""

_REQUEUE = """
# Back into the queue, to go on from the checkpoint: until a limit of the run, or scancel.
if [ "$code" -eq {exit_notice} ] && compgen -G {checkpoints} >/dev/null; then
    scontrol requeue "$SLURM_JOB_ID"
fi"""


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """What the file is about."""

    nodes: int
    """Hosts: one for each node of the run, spares among them."""

    directory: Path
    """The run's."""

    folder: Path
    """Where the command was typed."""

    command: Sequence[str]
    """It, without what is about Slurm."""

    program: str = "hsa2c train"
    """What its user knows it as."""

    @property
    def path(self) -> Path:
        """Where the file is written."""
        return self.directory / "job.sbatch"


def parse(texts: Sequence[str]) -> dict[str, str | None]:
    """Long options of sbatch, from ``partition=long,time=1-00:00:00,no-kill``; None for one without a value.

    A comma within brackets or quotation marks separates nothing: ``exclude=n[1,3],mail-type="END,FAIL"``.

    Raises:
        ConfigError: Something has not the form of an option, or is there twice.
    """
    options: dict[str, str | None] = {}
    for text in texts:
        parts = _PART.findall(text)
        if ",".join(parts) != text or not parts:
            raise ConfigError(f"--slurm {_shown(text)}: must be options of sbatch, partition=NAME,time=1:00:00,...")
        for part in parts:
            key, value = _option(part)
            if key in options:
                raise ConfigError(f"--slurm {_shown(part)}: {key} is there twice")
            options[key] = value
    return options


def _option(part: str) -> tuple[str, str | None]:
    key, equals, value = part.partition("=")
    if not _KEY.fullmatch(key):
        raise ConfigError(
            f"--slurm {_shown(part)}: must be a long option of sbatch, without its --, such as time=1:00:00"
        )
    if len(key) == 1:
        raise ConfigError(f"--slurm {_shown(part)}: must be a long option of sbatch, not its letter")
    if not equals:
        return key, None
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not _VALUE.fullmatch(value):
        raise ConfigError(
            f"--slurm {_shown(part)}: the value must be letters, digits and ._:/,@%+=*&|()!~^[]- on one line"
        )
    return key, value


def batch_file(job: BatchJob, wanted: Mapping[str, str | None]) -> str:
    """The text of the file.

    Args:
        job: What it is about.
        wanted: Options of sbatch, as `parse` gives them.

    Raises:
        ConfigError: An option contradicts what the job needs.
    """
    options = _options(job, wanted)
    signal = options["signal"] or ""
    checkpoints = shlex.quote(f"{job.directory.absolute()}/checkpoints/") + "'step-*.safetensors'"
    return _SCRIPT.format(
        name=job.directory.name,
        program=job.program,
        nodes="1 node" if job.nodes == 1 else f"{job.nodes} nodes",
        options="\n".join(_line(key, value) for key, value in options.items()),
        folder=shlex.quote(str(job.folder)),
        caps=f"export {' '.join(f'{name}=1' for name in THREAD_CAPS)}",
        notice_s=signal.partition("@")[2],
        exit_notice=_EXIT_NOTICE,
        command=shlex.join(job.command),
        requeue="" if "no-requeue" in options else _REQUEUE.format(exit_notice=_EXIT_NOTICE, checkpoints=checkpoints),
    )


def _options(job: BatchJob, wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """What is wanted beside what the job needs."""
    for key, why in _REFUSED.items():
        if key in wanted and not (key in ("ntasks", "tasks-per-node") and wanted[key] == _needed(job, key)):
            raise ConfigError(f"--slurm {key}: cannot be, {why}")
    for key in ("nodes", "ntasks-per-node"):
        if key in wanted and wanted[key] != _needed(job, key):
            raise ConfigError(f"--slurm {key}={wanted[key]}: must be {_needed(job, key)}, one for each node of the run")
    if "signal" in wanted and not _SIGNAL.fullmatch(wanted["signal"] or ""):
        raise ConfigError(f"--slurm signal={wanted['signal']}: must be B:USR1@SECONDS, to this file's shell")
    if not _VALUE.fullmatch(f"{job.directory.absolute()}"):
        raise ConfigError(f"{_shown(str(job.directory))}: no name for a file of sbatch")
    options: dict[str, str | None] = {
        "job-name": job.directory.name,
        "nodes": str(job.nodes),
        "ntasks-per-node": "1",
        "signal": f"B:USR1@{_notice_s(wanted.get('time'))}",
        "output": f"{job.directory.absolute()}/slurm.txt",
        "open-mode": "append",
    }
    if not _SHARES & set(wanted):
        options["exclusive"] = None
    if "no-requeue" not in wanted:
        options["requeue"] = None
    return options | {key: value for key, value in wanted.items() if key not in ("ntasks", "tasks-per-node")}


def _needed(job: BatchJob, key: str) -> str:
    return str(job.nodes) if key in ("nodes", "ntasks") else "1"


def _notice_s(limit: str | None) -> int:
    """Seconds before the end at which the job is told, at most half of its time.

    Raises:
        ConfigError: `limit` has not the form of a time.
    """
    if limit is None or limit.upper() in ("UNLIMITED", "INFINITE"):
        return _NOTICE_S
    found = _TIME.fullmatch(limit)
    if not found:
        raise ConfigError(f"--slurm time={limit}: must be minutes, hours:minutes:seconds or days-hours:minutes:seconds")
    days, *numbers = (int(number or 0) for number in found.groups())
    if found[1] is not None or found[4] is not None:  # days-hours, and perhaps more
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, numbers[:2]
    whole_s = ((24 * days + hours) * 60 + minutes) * 60 + seconds
    return max(1, min(_NOTICE_S, whole_s // 2)) if whole_s else _NOTICE_S


def _line(key: str, value: str | None) -> str:
    """A line of the file. sbatch takes words apart at spaces, and knows quotation marks; bash sees a comment."""
    if value is None:
        return f"#SBATCH --{key}"
    return f"#SBATCH --{key}={value}" if _PLAIN.fullmatch(value) else f'#SBATCH --{key}="{value}"'


def submit(path: Path) -> str:
    """Give the file to sbatch; gives back what that says.

    Raises:
        ConfigError: There is no sbatch here.
        HSA2CError: sbatch refuses it.
    """
    check_sbatch()
    run = ask(["sbatch", str(path)], _SUBMIT_S)
    if run.returncode != 0:
        raise HSA2CError(f"sbatch {path}: {' '.join(run.stderr.split())}")
    return run.stdout.strip()


def check_sbatch() -> None:
    """Make sure that a job can be submitted here.

    Raises:
        ConfigError: There is no sbatch.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError("--submit: sbatch is not here; without --submit the file is written all the same")


def _shown(text: str) -> str:
    return text if text.isprintable() and text else repr(text)
