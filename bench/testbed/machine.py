"""What a benchmark ran on, and what a family of processes costs."""

from __future__ import annotations

import os
from typing import Any

import psutil

from hsa2c.cluster.machine import about


def describe() -> dict[str, Any]:
    """The machine and the versions, as plain values; the load average says how idle it was."""
    facts = about()
    return {
        **{key: facts[key] for key in ("processor", "cores", "system", "python", "commit")},
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_1_min": round(os.getloadavg()[0], 2),
        "packages": {name: facts["packages"][name] for name in ("torch", "ale-py", "numpy")},
    }


def headline(facts: dict[str, Any]) -> str:
    """`describe` in one line."""
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, Python {facts['python']},"
        f" {packages}, commit {(facts['commit'] or 'unknown')[:10]}, load {facts['load_average_1_min']}"
    )


def family_pss_mib(pid: int) -> float:
    """Proportional set size of a process and all below it, in MiB: memory that is shared counts once.

    Processes that end meanwhile count as nothing.
    """
    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / 2**20
