"""This host and this process: cores, thread caps, versions."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from hsa2c.cluster import control_groups
from hsa2c.cluster.control_groups import read

#: Each of these libraries would start a thread for every core in every process: the commonest silent slowness.
THREAD_CAPS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

_MIB = 1024 * 1024

_PROJECT = "hsa2c"


def cap_threads() -> None:
    """One thread for each process; before numpy or torch load, for they read it then."""
    for name in THREAD_CAPS:
        os.environ[name] = "1"


def keep_freed_memory() -> bool:
    """Let the allocator keep what this process frees instead of giving it back to the kernel at once.

    A network's update allocates and frees the same megabytes again and again; glibc takes each large block from the
    kernel anew, which clears it page by page: 40 % of an update's time.

    Returns:
        Whether it could: it is glibc's own setting.
    """
    # M_MMAP_THRESHOLD (32 MiB is the most it takes), M_TRIM_THRESHOLD, M_TOP_PAD of glibc's malloc.h.
    wanted = {-3: 32 * _MIB, -1: 1024 * _MIB, -2: 16 * _MIB}
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in wanted.items())


def cores() -> int:
    """Cores that this process may use: its affinity, a container's quota, and what Slurm gave the job on this host."""
    allowed = len(os.sched_getaffinity(0))
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")  # not every Slurm binds processes to what it gave
    if given.isdecimal():
        allowed = max(1, min(allowed, int(given)))
    limit = quota()
    return max(1, min(allowed, limit)) if limit else allowed


def quota() -> int | None:
    """The least that a control group allows, such as a container's or a batch job's, in cores; None: all there are."""
    found = []
    for folder in control_groups.folders("cpu"):
        version_1 = [read(folder / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        said = (read(folder / "cpu.max") or " ".join(version_1)).split()
        if len(said) == 2 and all(word.isdigit() for word in said):
            limit, period = map(int, said)
            found.append(max(1, round(limit / period)))
    return min(found, default=None)


def share_of_cores(nodes_here: int, *, less: int = 0) -> int:
    """Processes for each of the nodes that share this host, so many less than cores."""
    return max(1, cores() // nodes_here - less)


def about() -> dict[str, Any]:
    """What a run was made with: versions, commit, host, command."""
    return {
        "command": sys.argv,
        "host": socket.gethostname(),
        "cores": cores(),
        "processor": _processor(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "commit": commit(),
        "packages": {name: version(name) for name in (_PROJECT, *_needed())},
        "threads": dict.fromkeys(THREAD_CAPS, "1"),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _needed() -> list[str]:
    """The distributions that this one needs, its extras aside; none where it is not installed."""
    try:
        needed = importlib.metadata.requires(_PROJECT) or ()
    except importlib.metadata.PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed if "extra ==" not in line]


def version(name: str) -> str | None:
    """Of an installed package; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The checkout's commit, with "+" where files differ from it; None outside a checkout."""
    try:
        git("ls-files", "--error-unmatch", __file__)  # installed into somebody else's checkout?
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def git(*arguments: str) -> str:
    """What a command of git prints about the checkout that this file is in."""
    here = Path(__file__).resolve().parent
    run = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    return run.stdout.strip()
