"""What a user calls a corpus, a word or a path, and the reader for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from examples.lda.corpora import ldac, matrixmarket, pydocs, text, uci
from examples.lda.corpora.cache import Recipe, cached, default_cache, stamp
from examples.lda.corpora.corpus import Corpus
from hsa2c.errors import ConfigError


def open_corpus(
    source: str, vocabulary: Path | None = None, *, cache: Path | None = None, progress: bool = True
) -> Corpus:
    """Open a corpus; what has been read before is mapped from the cache.

    Args:
        source: "pydocs"; or a folder of plain text; or a file: MatrixMarket if its name ends in .mtx or .mm, that of
            lda-c if in .ldac, .lda-c or .dat (each also with .gz), else the UCI repository's bag of words.
        vocabulary: For a file, and only for one: another with one word on each line.
        cache: Where to keep what was read. None: `default_cache`.
        progress: Show a bar while reading, if stderr is a terminal.

    Raises:
        ConfigError: There is no such source, or something is wrong in it; one line that says what and where.
    """
    return cached(cache or default_cache(), _recipe(source, vocabulary, progress))


def _recipe(source: str, vocabulary: Path | None, progress: bool) -> Recipe:
    path = Path(source)
    if source == pydocs.NAME:
        recipe = Recipe(source, pydocs.ingredients, pydocs.read_pydocs)
    elif path.is_dir():
        recipe = Recipe(source, partial(_folder, path), partial(text.read_folder, path, progress=progress))
    else:
        return _file_recipe(path, vocabulary, progress)
    if vocabulary is not None:
        raise ConfigError(f"vocabulary = {vocabulary}: {source} must be without: its words are those of its text")
    return recipe


def _file_recipe(path: Path, vocabulary: Path | None, progress: bool) -> Recipe:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file or folder")
    if vocabulary is None:
        raise ConfigError(f"{path}: must have a vocabulary: a file with one word on each line")
    kind, read = _reader(path, progress)
    return Recipe(
        str(path),
        lambda: [kind, stamp(path), stamp(vocabulary)],
        lambda directory: read(path, vocabulary, directory),
    )


def _reader(path: Path, progress: bool) -> tuple[str, Callable[[Path, Path, Path], None]]:
    """The name of a file's format, and what reads it, its vocabulary, and writes to a folder."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".mtx", ".mm")):
        return "MatrixMarket", partial(matrixmarket.read_matrix_market, progress=progress)
    if name.endswith((".ldac", ".lda-c", ".dat")):
        return "lda-c", partial(ldac.read_ldac, progress=progress)
    return "UCI", partial(uci.read_uci, progress=progress)


def _folder(path: Path) -> list[Any]:
    return ["text", *map(stamp, text.text_files(path))]
