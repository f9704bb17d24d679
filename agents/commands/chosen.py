"""Which checkpoint of a run plays: what both commands that evaluate agents ask, and read."""

from __future__ import annotations

import argparse
from pathlib import Path

from hsa2c.commands.options import OneLineParser, tell_skipped
from hsa2c.errors import CheckpointError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint import Checkpoint


def add_choice(p: OneLineParser) -> None:
    """The options."""
    p.add_argument("target", metavar="RUN_OR_CHECKPOINT", type=Path, help="run directory or .safetensors file")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the best checkpoint of the run; an error if it has none")
    which.add_argument("--newest", action="store_true", help="the newest checkpoint of the run")


def read(options: argparse.Namespace, *, unit: str) -> tuple[Checkpoint, Path]:
    """The checkpoint, and its file.

    Args:
        options: Those of `add_choice`, and `prog`.
        unit: What a score is the sum of: "games", "episodes".

    Raises:
        CheckpointError: There is none, or no best one where that was asked for.
    """
    checkpoint, path, skipped = checkpoints.read(options.target, prefer="newest" if options.newest else "best")
    tell_skipped(options.prog, skipped)
    if options.best and options.target.is_dir() and path.name != "best.safetensors":
        raise CheckpointError(f"{options.target}: has no best checkpoint yet (it takes 100 {unit})")
    return checkpoint, path
