"""What a user calls a corpus, a word or a path, and the reader for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora import ldac, matrixmarket, pydocs, text, uci
from hsa2c.examples.lda.corpora.cache import Recipe, cached, default_cache, stamp
from hsa2c.examples.lda.corpora.corpus import Corpus


def open_corpus(
    source: str,
    vocabulary: Path | None = None,
    *,
    encoding: str = "utf-8",
    pattern: str | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> Corpus:
    """Open a corpus; what has been read before is mapped from the cache.

    Args:
        source: "pydocs"; or a folder of plain text; or a file: MatrixMarket if its name ends in .mtx or .mm, that of
            lda-c if in .ldac, .lda-c or .dat (each also with .gz), else the UCI repository's bag of words.
        vocabulary: For a file, and only for one: another with one word on each line.
        encoding: Of plain text and of the vocabulary.
        pattern: For a folder, and only for one: what documents in it are called, see `text_files`.
        cache: Where to keep what was read. None: `default_cache`.
        progress: Show a bar while reading, if stderr is a terminal.

    Raises:
        ConfigError: There is no such source, or something is wrong in it; one line that says what and where.
    """
    _check_encoding(encoding)
    return cached(cache or default_cache(), _recipe(source, vocabulary, encoding, pattern, progress))


def remark_on(source: str, pattern: str | None = None) -> str | None:
    """What the user should know of a corpus that can be opened; None if nothing."""
    if source == pydocs.NAME or not os.path.isdir(source):  # noqa: PTH112 - never fails
        return None
    documents, others = text.text_files(Path(source), pattern)
    remark = text.left_out(others, len(documents), pattern)
    return remark and f"{source}: {remark}"


def _recipe(source: str, vocabulary: Path | None, encoding: str, pattern: str | None, progress: bool) -> Recipe:
    path = Path(source)
    if source != pydocs.NAME and os.path.isdir(path):  # noqa: PTH112 - never fails
        _refuse("vocabulary", vocabulary, f"{source} must be without: its words are those of its text")
        read = partial(text.read_folder, path, encoding=encoding, pattern=pattern, progress=progress)
        return Recipe(source, lambda: ["text", encoding, *map(stamp, text.text_files(path, pattern)[0])], read)
    _refuse("pattern", pattern, f"{source} must be without: it is no folder")
    if source == pydocs.NAME:
        _refuse("vocabulary", vocabulary, f"{source} must be without: its words are those of its text")
        return Recipe(source, pydocs.ingredients, pydocs.read_pydocs)
    return _file_recipe(path, vocabulary, encoding, progress)


def _refuse(name: str, value: object, why: str) -> None:
    if value is not None:
        raise ConfigError(f"{name} = {value}: {why}")


def _check_encoding(encoding: str) -> None:
    try:
        b"a".decode(encoding)
    except UnicodeError:  # it needs more than one byte
        pass
    except (LookupError, ValueError):
        raise ConfigError(f"encoding = {encoding!r}: must be one that Python knows: utf-8, latin-1, cp1252") from None


def _file_recipe(path: Path, vocabulary: Path | None, encoding: str, progress: bool) -> Recipe:
    if not os.path.lexists(path):
        raise ConfigError(f"{path}: no such file or folder")
    if vocabulary is None:
        raise ConfigError(f"{path}: must have a vocabulary: a file with one word on each line")
    kind, read = _reader(path, encoding, progress)
    return Recipe(
        str(path),
        lambda: [kind, stamp(path), stamp(vocabulary), encoding],
        lambda directory: read(path, vocabulary, directory),
    )


def _reader(path: Path, encoding: str, progress: bool) -> tuple[str, Callable[[Path, Path, Path], None]]:
    """The name of a file's format, and what reads it, its vocabulary, and writes to a folder."""
    name = path.name.lower().removesuffix(".gz")
    options: dict[str, Any] = {"encoding": encoding, "progress": progress}
    if name.endswith((".mtx", ".mm")):
        return "MatrixMarket", partial(matrixmarket.read_matrix_market, **options)
    if name.endswith((".ldac", ".lda-c", ".dat")):
        return "lda-c", partial(ldac.read_ldac, **options)
    return "UCI", partial(uci.read_uci, **options)
