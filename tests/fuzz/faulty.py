"""Readers that are broken, each in its own way, to see that the harness sees it."""

import os
import signal
import time

from hsa2c.errors import ConfigError
from tests.fuzz.harness import Reader


def _careful(path):
    if not path.read_bytes().isalnum():
        raise ConfigError(f"{path}: must be letters")


def _broken(break_it):
    """Good with its seed, and broken with any other content."""

    def read(path):
        if path.read_bytes() != b"good":
            break_it(path)

    return Reader(".x", [b"good"], read)


def _raise(error):
    def act(path):
        raise error

    return act


READERS = {
    "careful": Reader(".x", [b"good"], _careful),
    "crash": _broken(lambda path: os.kill(os.getpid(), signal.SIGSEGV)),
    "exit": _broken(lambda path: os._exit(7)),
    "error": _broken(_raise(ZeroDivisionError("by zero"))),
    "two lines": _broken(_raise(ConfigError("one\ntwo"))),
    "endless": _broken(lambda path: time.sleep(60)),
    "greedy": _broken(lambda path: bytearray(512 << 20)),
}
