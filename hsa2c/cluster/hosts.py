"""Runs over several hosts: who they are, what goes where, and which of them still answer."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from hsa2c.errors import ConfigError

AGENT = "PRTE_MCA_plm_ssh_agent"
"""Environment variable: what mpiexec starts its daemons on other hosts with, here and to PRRTE."""

_AGENTS = "ssh : rsh"  # PRRTE's default: the first that is there
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_MOST_SLOTS = 100_000
_MOST_PROCESSES = 1024  # as `cluster.processes`
_RULE = "must be slots=N or p=K, each once, and nothing else"
_ANSWER_S = 15.0  # a host that is up and busy takes a second or two


@dataclass(frozen=True)
class Host:
    """A line of a host file."""

    name: str
    slots: int = 1
    """Nodes that it is to have before the next host gets one; 0: none, but perhaps the master."""
    processes: int | None = None
    """Actor-learners of each node on it. p. None: as `cluster.processes` says, or the cores."""


def read(path: Path) -> tuple[Host, ...]:
    """The hosts in a file: one a line, ``NAME``, perhaps with ``slots=N`` and ``p=K``; ``#`` begins a comment.

    Raises:
        ConfigError: It cannot be read, names none, or has a line that is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null character in the name
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    hosts: dict[str, Host] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}, line {number}"
        host = _host(words, where)
        if host.name.lower() in hosts:
            raise ConfigError(f"{where}: {host.name}: is there twice; slots=N gives a host N nodes")
        hosts[host.name.lower()] = host
    if not hosts:
        raise ConfigError(f"{path}: names no host")
    if not any(host.slots for host in hosts.values()):
        raise ConfigError(f"{path}: slots=0 everywhere: one host at least must have a node")
    return tuple(hosts.values())


def _host(words: Sequence[str], where: str) -> Host:
    name, *others = words
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: {name!r}: must be a host's name or IPv4 address")
    said: dict[str, int] = {}
    for word in others:
        key, _, value = word.partition("=")
        if key not in {"slots", "p"} or key in said:
            raise ConfigError(f"{where}: {word!r}: {_RULE}")
        least, most = (0, _MOST_SLOTS) if key == "slots" else (1, _MOST_PROCESSES)
        if not (value.isascii() and value.isdigit() and len(value) < 10 and least <= int(value) <= most):
            raise ConfigError(f"{where}: {word!r}: {key} must be a number from {least} to {most}")
        said[key] = int(value)
    return Host(name, said.get("slots", 1), said.get("p"))


def slots(hosts: Sequence[Host]) -> int:
    """Nodes that fill each host once."""
    return sum(host.slots for host in hosts)


def places(hosts: Sequence[Host], nodes: int) -> list[str]:
    """The hosts of nodes 0 to `nodes` - 1, spares among them: as many on each host as it has slots, in the order of the
    file, and again from the first one on while there are more.
    """
    return list(islice(_rounds(hosts), nodes))


def _rounds(hosts: Sequence[Host]) -> Iterator[str]:
    return cycle([host.name for host in hosts for _ in range(host.slots)])


def beside(names: Sequence[str], nodes: int) -> list[int]:
    """For each node, spares among them, the working ones (0 to `nodes` - 1) on its host, itself at least."""
    working = names[:nodes]
    count = {name: working.count(name) for name in set(names)}
    return [max(1, count[name]) for name in names]


def processes(hosts: Sequence[Host], nodes: int) -> list[int | None]:
    """P of each node, spares among them, where its host's line says it."""
    own = {host.name: host.processes for host in hosts}
    return [own[name] for name in places(hosts, nodes)]


def nodes_left(hosts: Sequence[Host], left: Sequence[Host], nodes: int) -> int:
    """How many of a run's nodes go on when only some of its hosts are left.

    Each keeps those that it has, or takes others' up to its slots: a host gets no more than it was meant for, so that
    its nodes keep their share of the cores.
    """
    working = places(hosts, nodes)
    room = sum(max(host.slots, working.count(host.name)) for host in left)
    return min(nodes, room)


def is_here(name: str) -> bool:
    """Whether a host is the one that this process runs on."""
    own = socket.gethostname()
    if name.lower() in {"localhost", own.lower(), own.partition(".")[0].lower()}:
        return True
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(_is_own(family, address) for family, _, _, _, address in found)


def _is_own(family: int, address: tuple[object, ...]) -> bool:
    """Only an address of this host's own can be bound."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind(address)
    except OSError:
        return False
    return True


def answering(hosts: Sequence[Host], limit_s: float = _ANSWER_S) -> tuple[Host, ...]:
    """Those of the hosts on which a command can be started, by the program that mpiexec uses for it; all at a time.

    Args:
        hosts: Who is asked; this host is always there.
        limit_s: How long they may take, in seconds.
    """
    agent = _agent()
    asked = {host: None if is_here(host.name) else _ask(agent, host.name) for host in hosts}
    deadline = time.monotonic() + limit_s
    try:
        return tuple(host for host, process in asked.items() if process is None or _succeeds(process, deadline))
    finally:
        for process in filter(None, asked.values()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def check_answers(hosts: Sequence[Host], nodes: int, masters: int, listed: str) -> None:
    """Refuse a run on hosts of which one does not answer, before mpiexec says so in its own way.

    Args:
        hosts: Of the run.
        nodes: That go to them, spares among them.
        masters: One on each of the first hosts.
        listed: Where the hosts were read.

    Raises:
        ConfigError: One does not; names all that do not.
    """
    names = {*places(hosts, nodes), *(host.name for host in hosts[:masters])}
    used = [host for host in hosts if host.name in names]
    silent = set(used) - set(answering(used))
    if silent:
        first = next(host.name for host in used if host in silent)
        others = f", and {len(silent) - 1} more" if len(silent) > 1 else ""
        why = "does not answer" if _has_address(first) else "has no address"
        raise ConfigError(f"{listed}: host {first}{others}: {why}; `ssh {first} true` must work without a password")


def _has_address(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        return False


def _agent() -> list[str]:
    if "SLURM_JOB_ID" in os.environ and shutil.which("srun"):  # as mpiexec does there; ssh may be closed
        return ["srun", "--overlap", "--nodes=1", "--ntasks=1", "--quiet", "--nodelist"]
    for alternative in os.environ.get(AGENT, _AGENTS).split(":"):
        words = shlex.split(alternative)
        if words and shutil.which(words[0]):
            # A question that ssh may not ask would be waited for.
            return [*words, "-o", "BatchMode=yes"] if Path(words[0]).name == "ssh" else words
    return ["ssh"]


def _ask(agent: Sequence[str], name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*agent, name, "true"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _succeeds(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        return process.wait(max(0.0, deadline - time.monotonic())) == 0
    except subprocess.TimeoutExpired:
        return False
