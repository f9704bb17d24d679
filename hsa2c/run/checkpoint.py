"""Checkpoints: a run's states in a folder, written whole or not at all, never loaded wrongly.

A folder of checkpoints holds ``step-000000123.safetensors`` (t = 123, complete, the newest few) and
``best.safetensors`` (the parameter alone, for evaluation). While one is evaluated, ``evaluating.safetensors`` is there
too. What is in a file says `hsa2c.run.checkpoint_file`. Damaged files are passed over, and told of: they are neither
loaded nor counted among the newest few.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from hsa2c.errors import CheckpointError, StorageError
from hsa2c.run.checkpoint_file import Checkpoint, encode, load
from hsa2c.run.whole_file import write_whole

__all__ = [
    "Checkpoint",
    "best",
    "candidate",
    "check_identity",
    "load",
    "load_newest",
    "make_best",
    "read",
    "save",
    "save_best",
    "save_candidate",
    "steps",
]

FOLDER = "checkpoints"
"""Name of the folder of checkpoints inside a run's."""

_BEST, _CANDIDATE = "best.safetensors", "evaluating.safetensors"
_STEP = re.compile(r"step-(\d{9,})\.safetensors")
_TEMPORARY = re.compile(r"\.(?:step-\d{9,}|best|evaluating)\.safetensors\.(\d+)\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)

#: One writer at a time in this process: a save clears what dead writers left, and must not take another for one.
_writing = threading.Lock()

#: Files that were looked at, as they were then, and whether they were whole: each is read once.
_seen: dict[Path, tuple[tuple[int, int, int], bool]] = {}


def save(directory: Path, checkpoint: Checkpoint, *, keep: int, tell: Callable[[str], object] = str) -> Path:
    """Write ``step-<t>.safetensors``, then remove all but the newest `keep` up to this t that are whole.

    The arrays are copied first, so they may be live shared memory. Where there is no room, the oldest goes first, as
    long as a whole one is left. Checkpoints of a later t (of a run that went back to an earlier one) and the best one
    are left alone.

    Args:
        directory: The folder of checkpoints; made where it is missing.
        checkpoint: What to write.
        keep: Newest checkpoints that stay, this one included; at least 1.
        tell: Is told, in a line, of a checkpoint that had to make room.

    Returns:
        The path written.

    Raises:
        HSA2CError: The checkpoint cannot be one: wrong shapes, not finite, not JSON.
        StorageError: Writing failed: the disk is full, the folder is read-only. The newest one before is still there.
    """
    if keep < 1:
        raise ValueError(f"keep = {keep}: must be at least 1")
    path = directory / f"step-{checkpoint.t:09d}.safetensors"
    _write(path, checkpoint, tell)
    kept = 0
    for older in [p for t, p in _steps(directory) if t <= checkpoint.t]:
        if kept < keep:
            kept += older == path or is_whole(older)
        else:
            with contextlib.suppress(OSError):  # this checkpoint is safe already; the next save tries again
                older.unlink()
                _seen.pop(older, None)
    return path


def save_best(directory: Path, checkpoint: Checkpoint, *, tell: Callable[[str], object] = str) -> Path:
    """Write ``best.safetensors``: for evaluation, so without momentum and optimiser states (4 bytes a number).

    Args:
        directory: As `save`.
        checkpoint: As `save`.
        tell: As `save`.

    Raises:
        HSA2CError: As `save`; the best checkpoint of before is still there.
    """
    _write(directory / _BEST, _bare(checkpoint), tell)
    return directory / _BEST


def candidate(directory: Path) -> Path:
    """Where `save_candidate` writes: ``evaluating.safetensors``."""
    return directory / _CANDIDATE


def save_candidate(directory: Path, checkpoint: Checkpoint, *, tell: Callable[[str], object] = str) -> Path:
    """Write what is to be evaluated, and becomes the best checkpoint if it is; as `save_best`."""
    _write(directory / _CANDIDATE, _bare(checkpoint), tell)
    return directory / _CANDIDATE


def make_best(directory: Path) -> None:
    """Let the candidate be the best checkpoint.

    Raises:
        OSError: It has gone, or cannot be renamed; the best checkpoint of before is still there.
    """
    (directory / _CANDIDATE).replace(directory / _BEST)


def _bare(checkpoint: Checkpoint) -> Checkpoint:
    return dataclasses.replace(checkpoint, momentum=np.zeros_like(checkpoint.v), optimiser_states=())


def steps(directory: Path) -> dict[int, Path]:
    """The checkpoints of steps in a folder by t, newest first, whole or not; empty where there is no such folder."""
    return dict(_steps(directory))


def best(directory: Path) -> Path | None:
    """The best checkpoint in a folder of checkpoints, if there is one."""
    path = directory / _BEST
    return path if path.is_file() else None


def read(target: Path, *, prefer: Literal["best", "newest"]) -> tuple[Checkpoint, Path, list[str]]:
    """Read the checkpoint that a user means.

    Args:
        target: A run's folder, a folder of checkpoints, or a checkpoint file.
        prefer: In a folder: the newest of the steps that is whole; or the best if there is one, else the newest.

    Returns:
        As `load_newest`.

    Raises:
        CheckpointError: `target` does not exist, or holds no checkpoint that can be loaded.
    """
    try:
        mode = target.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{target}: no such run or checkpoint: {why}") from None
    if not stat.S_ISDIR(mode):
        return load(target), target, []
    directory = target / FOLDER if (target / FOLDER).is_dir() else target
    if prefer == "best" and (top := best(directory)):
        try:
            return load(top), top, []
        except CheckpointError as error:
            if not steps(directory):
                raise
            checkpoint, path, skipped = load_newest(directory)
            return checkpoint, path, [str(error), *skipped]
    return load_newest(directory)


def load_newest(directory: Path) -> tuple[Checkpoint, Path, list[str]]:
    """Read the newest checkpoint that is whole.

    Returns:
        The checkpoint, its path, and one line for each newer one that was skipped, with the reason.

    Raises:
        CheckpointError: There is none, or none that can be loaded.
    """
    if not (paths := steps(directory)):
        raise CheckpointError(f"{directory}: holds no checkpoint (step-*.safetensors)")
    skipped: list[str] = []
    for t, path in paths.items():
        try:
            return _load_step(t, path), path, skipped
        except CheckpointError as error:
            skipped.append(str(error))
    raise CheckpointError(f"{directory}: none of {len(skipped)} checkpoints can be loaded; the newest: {skipped[0]}")


def _load_step(t: int, path: Path) -> Checkpoint:
    checkpoint = load(path)
    if checkpoint.t != t:
        raise CheckpointError(f"{path}: holds t = {checkpoint.t}, by its name {t}")
    return checkpoint


def check_identity(checkpoint: Checkpoint, expected: Mapping[str, str], *, source: Path | None = None) -> None:
    """Refuse a checkpoint of another application or network, or of other data.

    Args:
        checkpoint: What was loaded.
        expected: What this run is of; the first difference, in this order, is named.
        source: Where the checkpoint came from, for the message.

    Raises:
        CheckpointError: ``checkpoint x is of application 'lda', this run is of 'hsa2c'``.
    """
    who = f"checkpoint {source}" if source else "the checkpoint"
    for name, value in expected.items():
        found = checkpoint.identity.get(name)
        if found is None:
            raise CheckpointError(f"{who} names no {name}, this run is of {value!r}")
        if found != value:
            raise CheckpointError(f"{who} is of {name} {found!r}, this run is of {value!r}")


def _steps(directory: Path) -> list[tuple[int, Path]]:
    """(t, path) of each checkpoint of a step, newest first; empty where there is no such folder."""
    try:
        paths = list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be read: {error.strerror or error}") from None
    return sorted(((int(m[1]), path) for path in paths if (m := _STEP.fullmatch(path.name))), reverse=True)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be loaded; a file is read once, and again when it is another."""
    try:
        status = path.stat()
    except OSError:
        return False
    now = (status.st_ino, status.st_size, status.st_mtime_ns)
    before, whole = _seen.get(path, (None, False))
    if before != now:
        match = _STEP.fullmatch(path.name)
        try:
            _load_step(int(match[1]) if match else -1, path)
            whole = True
        except CheckpointError:
            whole = False
        _seen[path] = (now, whole)
    return whole


def _write(path: Path, checkpoint: Checkpoint, tell: Callable[[str], object]) -> None:
    """Write a checkpoint whole, and make room for it where there is none."""
    content = encode(path, checkpoint)
    with _writing:
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                _remove_leftovers(path.parent)
                write_whole(path, content)
                return
            except OSError as error:
                oldest = _dispensable(path.parent, checkpoint.t) if error.errno in _FULL else None
                if oldest is None:
                    raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from None
            try:
                oldest.unlink()
            except OSError as error:
                raise StorageError(f"{oldest}: cannot be removed: {error.strerror or error}") from None
            tell(f"no room for {path.name}: {oldest.name} was removed for it")


def _dispensable(directory: Path, t: int) -> Path | None:
    """The oldest checkpoint before t, damaged ones first; None where no whole one would be left."""
    earlier = [path for step, path in reversed(_steps(directory)) if step < t]
    whole = [path for path in earlier if is_whole(path)]
    return next(iter([path for path in earlier if path not in whole] + whole[:-1]), None)


def _remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of writers that died; one of this pid is of an earlier process that had it."""
    for path in list(directory.iterdir()):
        match = _TEMPORARY.fullmatch(path.name)
        if match and (int(match[1]) == os.getpid() or not _is_alive(int(match[1]))):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(pid: int) -> bool:
    """Whether there is such a process, its own or another's."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
