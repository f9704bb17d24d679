"""Several hosts on one machine: each a set of namespaces with a network card of its own, joined by a switch.

    with EmulatedHosts(3) as hosts:
        hosts.shape("h1", bits_per_s=1e9)
        subprocess.run([*hosts.inside("h0"), "ping", "-c", "1", "h1"])

An emulated host has a name, a network, shared memory and an /etc/hosts of its own; it shares files, cores and process
ids with the machine. No address and no device is in the machine's own network. `agent` is a program to be used in
ssh's place: it runs a command on a host with the few environment variables that a login there would have. What it
prints comes by a pipe, not over the emulated network.

A host's TCP is Reno's, whatever the machine's is. Linux's own, CUBIC, which namespaces may not choose, is much like it
where little fits into a link (RFC 9438, 4.3); with BBR, nodes that exchange all the time had two thirds of its speed.

Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and iproute2, see `why_not`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from bench.testbed.runs import exit_on_sigterm
from hsa2c.node.lifetime import die_with_parent

_TOOLS = ("ip", "tc", "nsenter", "unshare", "mount", "hostname")
_TRIAL = "ip link add name b type bridge && ip link add name v type veth peer name w && mount -t tmpfs t /mnt"
_NETWORK = "10.77"
_LIMIT_S = 30.0  # for what takes milliseconds
_LETTERS_WITH_VALUE = "BbcDEeFIiJLlmOopQRSWw"  # ssh's options that are followed by one

_HOLD = """
hostname "$1"
mount -t tmpfs shm /dev/shm
mount --bind "$2" /etc/hosts
ip link set lo up
echo 1 2>/dev/null > /proc/sys/net/ipv6/conf/all/disable_ipv6
echo reno 2>/dev/null > /proc/sys/net/ipv4/tcp_congestion_control
echo ready
exec sleep infinity
"""

_SWITCH = "ip link add name bridge0 type bridge && ip link set dev bridge0 up && echo ready && exec sleep infinity"

_AGENT = """#!/bin/sh
# Runs a command on an emulated host: AGENT [SSH'S OPTIONS] HOST COMMAND...
while case "$1" in -*) true ;; *) false ;; esac; do
    case "$1" in -[{letters}]) shift ;; esac
    shift
done
name=$1
shift
case "$name" in
{cases}
*) echo "$name: no such host" >&2; exit 255 ;;
esac
hang_if_cut() {{ [ -e "{folder}/$name.cut" ] && sleep 1000; }}  # as a connection that nobody answers
hang_if_cut
[ -e "{folder}/$name.dead" ] && exit 255
{enter} --target "$pid" -- env -i PATH="{path}" HOME="$HOME" TMPDIR="{folder}/$name.tmp" sh -c "cd; $*"
code=$?
hang_if_cut
exit $code
"""

_ENTER = ("nsenter", "--net", "--uts", "--mount", "--ipc")


def why_not() -> str | None:
    """Why hosts cannot be emulated here; None if they can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root"
    trial = subprocess.run(
        ["unshare", "--net", "--uts", "--mount", "--ipc", "sh", "-c", _TRIAL],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    return None if trial.returncode == 0 else f"no namespaces: {' '.join(trial.stderr.split())}"


class EmulatedHosts:
    """Hosts h0, h1, ... while the context lasts; afterwards no process, namespace or file of them is left.

    Args:
        number: How many.
        delay_s: What every packet takes from host to host, one way, beside the time for its bits. With a delay the
            switch is a process (`bench.testbed.slow_switch`), without it is the kernel's own, which takes microseconds.
        bits_per_s: What each host can send, and receive, in a second; as fast as it goes, if not given.
    """

    def __init__(self, number: int, *, delay_s: float = 0.0, bits_per_s: float | None = None) -> None:
        self._delay_s, self._bits_per_s = delay_s, bits_per_s
        self.names = [f"h{i}" for i in range(number)]
        self.addresses = {name: f"{_NETWORK}.{i // 250}.{i % 250 + 1}" for i, name in enumerate(self.names)}
        self._holders: dict[str, subprocess.Popen[str]] = {}
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(exit_on_sigterm())  # what runs on a host would go on without a network
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emulated-hosts-")))
            table = self._folder / "hosts"
            lines = [f"{address} {name}\n" for name, address in self.addresses.items()]
            table.write_text("127.0.0.1 localhost\n" + "".join(lines))
            if not self._delay_s:
                self._switch = stack.enter_context(_holding(["unshare", "--net", "sh", "-c", _SWITCH]))
            for name in self.names:
                command = ["unshare", "--net", "--uts", "--mount", "--ipc", "sh", "-c", _HOLD, "sh", name, str(table)]
                self._holders[name] = stack.enter_context(_holding(command))
                stack.callback(self._end, name)
                (self._folder / f"{name}.tmp").mkdir()
            if self._delay_s:
                self._switch = stack.enter_context(_holding(self._slow_switch()))
            for name in self.names:
                self._connect(name)
            self._write_agent()
            self._ending = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @property
    def agent(self) -> Path:
        """The program in ssh's place."""
        return self._folder / "agent"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make mpiexec use `agent`, and what would be a login's on the first host."""
        return {"PRTE_MCA_plm_ssh_agent": str(self.agent), "TMPDIR": str(self._folder / f"{self.names[0]}.tmp")}

    def inside(self, name: str) -> list[str]:
        """What to put before a command, so that it runs on this host, in the folder that this process is in."""
        return [*_ENTER, "--target", str(self._holders[name].pid), "--", "env", f"--chdir={Path.cwd()}"]

    def processes(self, name: str) -> list[int]:
        """Process ids of all that runs on a host."""
        holder = self._holders[name].pid
        return [] if self._holders[name].poll() is not None else [pid for pid in _beside(holder) if pid != holder]

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to all that runs on a host; not to what has ended meanwhile."""
        for pid in self.processes(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def shared_memory(self, name: str) -> list[str]:
        """What lies in a host's /dev/shm."""
        return sorted(path.name for path in Path(f"/proc/{self._holders[name].pid}/root/dev/shm").iterdir())

    # What may happen to a host.

    def shape(self, name: str, *, bits_per_s: float) -> None:
        """Limit what a host can send and receive each second; not with a delay."""
        assert not self._delay_s, "a slow switch has one rate for all, given at its start"
        rate = f"tbf rate {bits_per_s:.0f}bit burst 128kb latency 50ms"
        _sh(self._switch.pid, f"tc qdisc replace dev {name} root {rate}")
        _sh(self._holders[name].pid, f"tc qdisc replace dev eth0 root {rate}")

    def cut(self, name: str) -> None:
        """Take the cable out: nothing reaches the host any more, and nothing is told to anybody."""
        (self._folder / f"{name}.cut").touch()
        self._tell_switch(name, "cut", "down")

    def restore(self, name: str) -> None:
        """Put the cable in again."""
        self._tell_switch(name, "restore", "up")
        (self._folder / f"{name}.cut").unlink(missing_ok=True)

    def kill_host(self, name: str) -> None:
        """Kill (KILL) every process of a host; it does not come back. Others see its connections close: for a host
        that loses its power `cut` it first.
        """
        (self._folder / f"{name}.dead").touch()  # first: nothing may start there while the others end
        self._end(name)
        self._holders[name].kill()
        self._holders[name].wait()

    # How they are made.

    def _connect(self, name: str) -> None:
        host = self._holders[name].pid
        if not self._delay_s:
            _sh(self._switch.pid, f"ip link add name {name} type veth peer name eth0 netns {host}")
            _sh(self._switch.pid, f"ip link set dev {name} master bridge0 up")
        _sh(host, f"ip addr add {self.addresses[name]}/16 dev eth0 && ip link set dev eth0 up")
        if not self._delay_s and self._bits_per_s:
            self.shape(name, bits_per_s=self._bits_per_s)

    def _slow_switch(self) -> list[str]:
        ports = [f"{name}:{self.addresses[name]}:{self._holders[name].pid}" for name in self.names]
        script = Path(__file__).with_name("slow_switch.py")
        return [sys.executable, str(script), str(self._delay_s), str(self._bits_per_s or "inf"), *ports]

    def _tell_switch(self, name: str, word: str, state: str) -> None:
        if not self._delay_s:
            _sh(self._switch.pid, f"ip link set dev {name} {state}")
            return
        assert self._switch.stdin is not None
        self._switch.stdin.write(f"{word} {name}\n")
        self._switch.stdin.flush()

    def _write_agent(self) -> None:
        cases = [f"{name}|{self.addresses[name]}) pid={self._holders[name].pid} ;;" for name in self.names]
        text = _AGENT.format(
            letters=_LETTERS_WITH_VALUE,
            cases="\n".join(cases),
            folder=self._folder,
            enter=shlex.join(_ENTER),
            path=os.defpath.lstrip(":"),
        )
        self.agent.write_text(text)
        self.agent.chmod(0o700)

    def _end(self, name: str) -> None:
        """End every process of a host but the one that holds it."""
        deadline = time.monotonic() + _LIMIT_S
        while pids := self.processes(name):
            self.signal(name, signal.SIGKILL)
            assert time.monotonic() < deadline, f"{name}: processes {pids} do not end"
            time.sleep(0.01)


@contextlib.contextmanager
def _holding(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that says that it is ready, and is ended at the end; the namespaces that it made go with it."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - no thread of ours starts processes
    ) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                raise OSError(f"no namespaces: exit code {holder.wait(_LIMIT_S)}")
            yield holder
        finally:
            holder.kill()


def _beside(pid: int) -> list[int]:
    """Processes in the same network namespace, zombies left out."""
    network = Path(f"/proc/{pid}/ns/net").readlink()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "ns/net").readlink() == network:
                found.append(int(entry.name))
    return found


def _sh(pid: int, command: str) -> None:
    """Run a command in the network of a process."""
    subprocess.run(
        ["nsenter", "--net", "--target", str(pid), "sh", "-c", command],
        check=True,
        timeout=_LIMIT_S,
        stdin=subprocess.DEVNULL,
    )
