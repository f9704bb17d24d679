"""A network switch for emulated hosts whose links take time; `bench.testbed.emulated_hosts` starts it as a process of
its own.

    python bench/testbed/slow_switch.py DELAY_S BITS_PER_S NAME:ADDRESS:PID...

Each host gets a TUN device, whose other end is here. A packet waits until both links, the sender's to the switch and
the switch's to the receiver, have had time for its bits, one packet after the other, and for DELAY_S more. What would
wait longer than 50 ms for its turn is dropped, as in a switch whose memory is full. Packets are of up to 64 KiB: the
kernel cuts TCP's stream into segments only where there is hardware, which is what lets a Python loop keep up.

Lines on stdin take out a host's cable (``cut NAME``) and put it in again (``restore NAME``); the end of stdin ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from socket import inet_aton

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0  # linux/if_tun.h
_TUN, _NO_PI, _VNET_HDR = 0x1, 0x1000, 0x4000
_CSUM_AND_TSO4 = 0x1 | 0x2
_CLONE_NEWNET = 0x40000000
_VNET_HDR_LENGTH = 10
_DESTINATION = slice(_VNET_HDR_LENGTH + 16, _VNET_HDR_LENGTH + 20)  # of an IPv4 header
_LONGEST_PACKET = 65_535 + _VNET_HDR_LENGTH
_AT_ONCE = 64  # packets read from a host before others have their turn
_QUEUE_S = 0.05
_LONGEST_WAIT_S = 0.1


@dataclass
class Port:
    """A host's cable, as the switch sees it."""

    name: str
    device: int
    """File descriptor."""
    up_free_at: float = 0.0
    """When the link from the host has carried all that it sent, on the monotonic clock."""
    down_free_at: float = 0.0
    """The same for the link to the host."""
    under_way: deque[tuple[float, bytes]] = field(default_factory=deque)
    """Packets to the host, with the time at which they arrive."""
    cut: bool = False


class Switch:
    """Ports by their hosts' addresses.

    Args:
        ports: By IPv4 address.
        delay_s: From host to host, one way.
        bits_per_s: Of each link, in each direction.
    """

    def __init__(self, ports: dict[bytes, Port], delay_s: float, bits_per_s: float) -> None:
        self._ports = ports
        self._by_device = {port.device: port for port in ports.values()}
        self._delay_s = delay_s
        self._bits_per_s = bits_per_s

    def serve(self, commands: int) -> None:
        """Until the end of what `commands`, a file descriptor, gives."""
        sources = [commands, *self._by_device]
        while True:
            wait_s = self._deliver(time.monotonic())
            for source in select.select(sources, [], [], wait_s)[0]:
                if source != commands:
                    self._take(self._by_device[source])
                elif not self._obey(os.read(commands, 4096).decode()):
                    return

    def _deliver(self, now: float) -> float:
        """Hand over what has arrived; gives back the seconds until the next packet does."""
        next_at = now + _LONGEST_WAIT_S
        for port in self._ports.values():
            while port.under_way and port.under_way[0][0] <= now:
                packet = port.under_way.popleft()[1]
                if not port.cut:
                    with contextlib.suppress(OSError):  # the host is gone
                        os.write(port.device, packet)
            if port.under_way:
                next_at = min(next_at, port.under_way[0][0])
        return max(0.0, next_at - time.monotonic())

    def _take(self, source: Port) -> None:
        """Queue what a host sends."""
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(source.device, _LONGEST_PACKET)
            except OSError:  # nothing more, or the host is gone
                return
            target = self._ports.get(packet[_DESTINATION])
            if target is not None and not source.cut:
                self._queue(packet, source, target)

    def _queue(self, packet: bytes, source: Port, target: Port) -> None:
        now = time.monotonic()
        takes_s = 8 * (len(packet) - _VNET_HDR_LENGTH) / self._bits_per_s
        up = max(now, source.up_free_at) + takes_s
        down = max(up, target.down_free_at + takes_s)  # the last bit comes after the last bit came here
        if up - now > _QUEUE_S + takes_s or down - up > _QUEUE_S + takes_s:
            return
        source.up_free_at, target.down_free_at = up, down
        target.under_way.append((down + self._delay_s, packet))

    def _obey(self, text: str) -> bool:
        for line in text.splitlines():
            what, name = line.split()
            for port in self._ports.values():
                if port.name == name:
                    port.cut = what == "cut"
        return bool(text)


def open_device(pid: int, name: str) -> int:
    """A TUN device in the network of a process; this process comes back to its own.

    Raises:
        OSError: The system does not let it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as own, open(f"/proc/{pid}/ns/net") as theirs:  # noqa: PTH123 - descriptors
        if libc.setns(theirs.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns to process {pid}")
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TUN | _NO_PI | _VNET_HDR))
            fcntl.ioctl(device, _TUNSETOFFLOAD, _CSUM_AND_TSO4)
        finally:
            if libc.setns(own.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns back")
    return device


def main(delay_s: str, bits_per_s: str, *hosts: str) -> None:
    """Be the switch."""
    ports = {}
    for name, address, pid in (host.split(":") for host in hosts):
        ports[inet_aton(address)] = Port(name, open_device(int(pid), "eth0"))
    print("ready", flush=True)
    Switch(ports, float(delay_s), float(bits_per_s)).serve(sys.stdin.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
