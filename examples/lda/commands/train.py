"""``python -m examples.lda --corpus pydocs --topics 20``: DPSVI by the command that trains any application."""

from __future__ import annotations

from hsa2c.commands import train

APPLICATION = "examples.lda.application"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives back the exit code: 0 done, 1 failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    return train.main(arguments, app=APPLICATION)
