"""The delay of a link by itself: round trips of a byte over one TCP connection. No MPI, nothing of this project.

python -m bench.testbed.link_probe listen
python -m bench.testbed.link_probe ask HOST SECONDS      prints the seconds of each round trip, as a JSON list
"""

from __future__ import annotations

import json
import socket
import sys
import time

_PORT = 5101


def listen() -> None:
    """Serve whoever connects, one after another, until killed."""
    with socket.create_server(("", _PORT)) as server:
        print("listens", flush=True)
        while True:
            with server.accept()[0] as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while byte := connection.recv(1):
                    connection.sendall(byte)


def ask(host: str, seconds: float) -> list[float]:
    """Seconds of round trips, for so long."""
    took = []
    with socket.create_connection((host, _PORT), timeout=20.0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends_at = time.monotonic() + seconds
        while (began_at := time.monotonic()) < ends_at:
            connection.sendall(b"x")
            if not connection.recv(1):
                raise ConnectionError("closed in the middle")
            took.append(time.monotonic() - began_at)
    return took


def main(what: str, *arguments: str) -> None:
    """Be one end."""
    if what == "listen":
        listen()
    else:
        host, seconds = arguments
        print(json.dumps(ask(host, float(seconds))))


if __name__ == "__main__":
    main(*sys.argv[1:])
