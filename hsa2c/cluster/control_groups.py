"""What the kernel says of the control groups that this process is in, of version 2 and of version 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def folders(controller: str) -> Iterator[Path]:
    """Of each group, from the process's own up to the root; in a container not all need be there."""
    for line in read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = Path("/sys/fs/cgroup") / (controller if controllers else "")
        folder = top / own.lstrip("/")
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(top))


def number(path: Path) -> int | None:
    """None: there is no such limit."""
    text = read(path).strip()
    return int(text) if text.isdigit() else None


def read(path: Path) -> str:
    """Empty: there is no such file, or it may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # of a process that has ended, or of another kernel
        return ""
