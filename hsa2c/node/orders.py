"""What a node's parent and its actor-learners say to each other, over a socket each."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

ORDER = struct.Struct("=qd?")  # B, rate scale, whether to go on until interrupted


READY, PROGRESS, DONE, RESTS, FAILED, UNFIT = b"R", b"P", b"D", b"H", b"F", b"U"


MAX_MESSAGE = 128 * 1024  # a sequenced packet must fit the socket's buffer


class Reports:
    """Reports of a node's problems, gathered until they are sent: a JSON list."""

    def __init__(self) -> None:
        self._items: list[bytes] = []

    def add(self, report: bytes) -> None:
        """Add one problem's report, a JSON object."""
        self._items.append(report)

    def take(self) -> bytes:
        """All so far, as a JSON list; they are forgotten here."""
        items, self._items = self._items, []
        return b"[" + b",".join(items) + b"]"


def to_json(report: Mapping[str, Any]) -> bytes:
    """A report as it goes over the socket; numpy's scalars are numbers there."""
    return json.dumps(report, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    """JSON for numpy's scalars."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")
