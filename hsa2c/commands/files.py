"""Files that commands write: none over an older one without a word."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def unused(path: Path) -> Path:
    """`path`, or where there is one already the next name that is free: ``curves-2.png``."""
    names = (path if n == 1 else path.with_stem(f"{path.stem}-{n}") for n in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


@contextlib.contextmanager
def replacing(prog: str, path: Path) -> Iterator[None]:
    """Say, after a file has been written inside, that there was an older one."""
    existed = os.path.lexists(path)
    yield
    if existed:
        print(f"{prog}: {path}: an older file was replaced", file=sys.stderr)
