"""How the doctor's processes tell their launcher: signs of life on stderr, JSON on stdout, a line each."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from hsa2c.errors import HSA2CError

MARK = "hsa2c-doctor "
_ATOMIC = 4096  # bytes that a pipe takes, and mpiexec hands on, in one piece: lines of several ranks do not mix


def sign(rank: int, stage: str) -> None:
    """Say that this process is there, and how far it has come."""
    os.write(2, f"{MARK}{rank} {stage}\n".encode())


def tell(values: dict[str, Any]) -> None:
    """Tell the launcher something."""
    line = f"{MARK}{json.dumps(values, separators=(',', ':'))}\n".encode()
    if len(line) > _ATOMIC:
        raise HSA2CError(f"{len(line)} bytes to tell, more than {_ATOMIC}")
    sys.stdout.flush()
    os.write(1, line)


def told(line: str) -> dict[str, Any] | None:
    """What a line of stdout tells; None if it is somebody else's."""
    if not line.startswith(MARK):
        return None
    try:
        values: dict[str, Any] = json.loads(line.removeprefix(MARK))
    except ValueError:
        return None
    return values


def signed(line: str) -> tuple[int, str] | None:
    """Rank and stage, of a line of stderr; None if it is somebody else's."""
    words = line.removeprefix(MARK).split()
    if not line.startswith(MARK) or len(words) != 2 or not words[0].isdigit():
        return None
    return int(words[0]), words[1]
