"""What a link carries by itself: requests and answers over one TCP connection. No MPI, nothing of this project.

    python -m bench.link_probe listen
    python -m bench.link_probe ask HOST SECONDS BYTES      prints the seconds of each round trip, as a JSON list

A round trip sends BYTES and waits for one byte.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

_PORT = 5101
_LENGTH = 8


def listen() -> None:
    """Serve whoever connects, until killed."""
    with socket.create_server(("", _PORT)) as server:
        print("listens", flush=True)
        while True:
            threading.Thread(target=_serve, args=(server.accept()[0],), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while head := connection.recv(_LENGTH, socket.MSG_WAITALL):
            _receive(connection, int.from_bytes(head))
            connection.sendall(b"x")


def ask(host: str, seconds: float, size: int) -> list[float]:
    """Seconds of round trips, for so long."""
    took = []
    with socket.create_connection((host, _PORT), timeout=20.0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = size.to_bytes(_LENGTH) + bytes(size)
        ends_at = time.monotonic() + seconds
        while (began_at := time.monotonic()) < ends_at:
            connection.sendall(message)
            connection.recv(1)
            took.append(time.monotonic() - began_at)
    return took


def _receive(connection: socket.socket, size: int) -> None:
    buffer = memoryview(bytearray(1 << 20))
    while size:
        got = connection.recv_into(buffer[: min(size, len(buffer))])
        if not got:
            raise ConnectionError("closed in the middle of a message")
        size -= got


def main(what: str, *arguments: str) -> None:
    """Be one end."""
    if what == "listen":
        listen()
    else:
        host, seconds, size = arguments
        print(json.dumps(ask(host, float(seconds), int(size))))


if __name__ == "__main__":
    main(*sys.argv[1:])
