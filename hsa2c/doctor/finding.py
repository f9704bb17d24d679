"""What a check says: one line each, with its cure where something is not as it should be."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace


class Level(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """The run works, though slower or less safely than it could."""
    PROBLEM = "problem"
    """It would stop the run, or spoil it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line."""

    check: str
    """What was looked at, in a word or two."""
    level: Level
    text: str
    cure: str = ""
    """What to do about it; empty where it is ok."""
    host: str = ""
    """Whom it is about; empty for all, or for this machine."""

    def line(self) -> str:
        """In words, without the level."""
        where = f"{self.host}, {self.check}" if self.host else self.check
        return f"{where}: {self.text}" + (f"; {self.cure}" if self.cure else "")


def ok(check: str, text: str) -> Finding:
    """Something is as it should be."""
    return Finding(check=check, level=Level.OK, text=text)


def warning(check: str, text: str, cure: str, host: str = "") -> Finding:
    """Something costs speed or safety."""
    return Finding(check=check, level=Level.WARNING, text=_flat(text), cure=cure, host=host)


def problem(check: str, text: str, cure: str, host: str = "") -> Finding:
    """Something stops or spoils the run."""
    return Finding(check=check, level=Level.PROBLEM, text=_flat(text), cure=cure, host=host)


def safe(findings: Iterable[Finding]) -> bool:
    """Whether the run may be started."""
    return all(finding.level is not Level.PROBLEM for finding in findings)


def gathered(findings: Iterable[Finding], fine: Finding) -> list[Finding]:
    """One line for all hosts of which the same was found; `fine` where nothing was."""
    hosts: dict[Finding, list[str]] = {}
    for finding in findings:
        hosts.setdefault(replace(finding, host=""), []).append(finding.host)
    return [replace(finding, host=", ".join(filter(None, names))) for finding, names in hosts.items()] or [fine]


def _flat(text: str) -> str:
    """Somebody else's words as a part of one line."""
    return " ".join(text.split())
