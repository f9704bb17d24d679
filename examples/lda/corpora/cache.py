"""What has been read once is not read again: corpora are kept as `storage` writes them, under what they were read from.

A corpus is made in a folder beside and moved to its place when it is whole. So whatever interrupts that leaves no half
of one, and processes that make the same at once do not meet: the first to be ready wins.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora.corpus import Corpus
from hsa2c.examples.lda.corpora.lines import unreadable
from hsa2c.examples.lda.corpora.storage import VERSION, load

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}

_UNFINISHED = "unfinished-"
_ABANDONED_S = 24 * 3600.0


@dataclass(frozen=True)
class Recipe:
    """How a corpus is made."""

    what: str
    """Its source, for messages."""

    ingredients: Callable[[], list[Any]]
    """What decides its content, as values for JSON. Asked before and after."""

    make: Callable[[Path], None]
    """Writes the corpus into an empty folder."""


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/hsa2c/lda``, or ``~/.cache/hsa2c/lda``.

    Raises:
        ConfigError: The user has no home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if Path(base).is_absolute():  # the specification: others are to be ignored
        return Path(base) / "hsa2c" / "lda"
    try:
        return Path.home() / ".cache" / "hsa2c" / "lda"
    except RuntimeError:
        raise ConfigError("no home directory to keep corpora in: set XDG_CACHE_HOME") from None


def cached(cache: Path, recipe: Recipe) -> Corpus:
    """The corpus of a recipe: from the cache, or made and put there.

    Raises:
        ConfigError: It cannot be made, or changed meanwhile, or the cache cannot be written.
    """
    key = key_of(recipe)
    if (corpus := load(cache / key)) is not None:
        return corpus
    with _workshop(cache) as directory:
        recipe.make(directory)
        if key_of(recipe) != key:
            raise ConfigError(f"{recipe.what}: has changed while it was read")
        corpus = load(directory)
        assert corpus is not None
        return _keep(directory, cache / key) or corpus  # which has its maps, wherever the folder is now


def stamp(path: Path) -> list[Any]:
    """What tells whether a file is still the same, without reading it.

    Raises:
        ConfigError: There is no such file, or it is something else, such as a pipe, which can be read once only.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        raise ConfigError(f"{path}: {kind}: must be a file, which can be read again")
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]  # noqa: PTH100 - resolve() would follow links


def key_of(recipe: Recipe) -> str:
    """The name of a recipe's entry in the cache."""
    return hashlib.sha256(json.dumps([VERSION, *recipe.ingredients()]).encode()).hexdigest()[:32]


@contextmanager
def _workshop(cache: Path) -> Iterator[Path]:
    """A new folder in the cache, which is gone at the end unless it was moved away."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _sweep(cache)
        directory = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=cache))
    except OSError as error:
        raise _unwritable(cache, error) from None
    try:
        yield directory
    except OSError as error:  # of readers' sources it would be a ConfigError already
        raise _unwritable(cache, error) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _keep(directory: Path, entry: Path) -> Corpus | None:
    """Move a finished folder to its place; the corpus that another process has put there first, if one has."""
    for _ in range(2):
        try:
            directory.rename(entry)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        else:
            return None
        if (faster := load(entry)) is not None:
            return faster
        discard(entry)
    return None


def discard(entry: Path) -> None:
    """Take a damaged entry out of the way in one step; another process may be about to do the same."""
    away = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=entry.parent))
    with suppress(FileNotFoundError):
        entry.rename(away / entry.name)
    shutil.rmtree(away, ignore_errors=True)


def _sweep(cache: Path) -> None:
    """Delete what processes that were killed have left unfinished."""
    for left in cache.glob(f"{_UNFINISHED}*"):
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)


def _unwritable(cache: Path, error: OSError) -> ConfigError:
    why = error.strerror or error
    return ConfigError(f"{cache}: corpora cannot be kept in it: {why}; XDG_CACHE_HOME names another folder for them")
