"""Measurements that are kept, and not made again."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from hsa2c.observe.jsonlines import Lines
from hsa2c.observe.runlog import read_rows


class Results:
    """Measurements in a file, a line each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._found: list[dict[str, Any]] = list(read_rows(path)) if path.exists() else []

    def get(self, **key: Any) -> dict[str, Any] | None:
        """What was measured for this."""
        return next((row for row in self._found if all(row.get(name) == value for name, value in key.items())), None)

    def put(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a measurement."""
        self._found.append(row)
        with contextlib.closing(Lines(self._path)) as lines:
            lines.append(row)
        told = {key: value for key, value in row.items() if not isinstance(value, list)}
        print(" ".join(f"{key}={value}" for key, value in told.items()), file=sys.stderr, flush=True)
        return row
