"""Plain text: documents as people wrote them, made into counts by scikit-learn."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora.extras import extra
from hsa2c.examples.lda.corpora.lines import unreadable
from hsa2c.examples.lda.corpora.progress import reading
from hsa2c.examples.lda.corpora.storage import complete, write_entries

ENDINGS = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})

WORD = r"(?u)\b[^\W\d_]{3,}\b"
"""At least three letters of any alphabet, with nothing else beside them: no names of variables, no parts of numbers."""

FEWEST_DOCUMENTS, LARGEST_SHARE = 2, 0.5


def count_words(
    texts: Iterable[str], *, fewest: int, share: float, what: str
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], list[str]]:
    """Count the words of texts, in lower case and without the usual words of English ("the", "which").

    Args:
        texts: The documents.
        fewest: Leave out words that are in fewer documents,
        share: or in more than this share of them.
        what: Where they are from, the beginning of messages.

    Returns:
        Entries of each document [documents]; words, ascending in each document, and counts [entries]; the vocabulary
        in alphabetical order [V].

    Raises:
        ConfigError: No word is left, or scikit-learn is missing.
    """
    sklearn = extra("sklearn.feature_extraction.text", "scikit-learn", what)
    counter = sklearn.CountVectorizer(
        lowercase=True, stop_words="english", token_pattern=WORD, min_df=fewest, max_df=share, dtype=np.int32
    )
    try:
        matrix = counter.fit_transform(texts)
    except ValueError:  # whatever it says: parameters and texts are of the right types
        raise ConfigError(
            f"{what}: no words: none of three letters or more is in at least {fewest} documents and at most "
            f"{share:.0%} of them"
        ) from None
    matrix.sort_indices()  # they were in the order of words before those were sorted
    return np.diff(matrix.indptr).astype(np.int64), matrix.indices, matrix.data, list(counter.get_feature_names_out())


def text_files(folder: Path, pattern: str | None = None) -> tuple[list[Path], list[Path]]:
    """The files in a folder and those below it, also behind links to folders, each folder once; hidden ones left out.

    Args:
        folder: Where.
        pattern: What documents are called, such as "*.txt"; None: their names end in one of `ENDINGS`.

    Returns:
        The documents, at least one, and the files that are left out by their names; both sorted.

    Raises:
        ConfigError: There are no documents, or a folder cannot be read.
    """
    documents: list[Path] = []
    others: list[Path] = []
    for here, names in _folders(folder):
        for name in names:
            ending = Path(name).suffix.lower()
            chosen = ending in ENDINGS if pattern is None else fnmatch.fnmatchcase(name, pattern)
            (documents if chosen else others).append(here / name)
    if not documents:
        raise ConfigError(f"{folder}: has no plain text: {left_out(sorted(others), 0, pattern) or 'it is empty'}")
    return sorted(documents), sorted(others)


def left_out(others: Sequence[Path], documents: int, pattern: str | None) -> str | None:
    """What to tell of files that are left out; None without any."""
    if not others:
        return None
    rule = f"end in {', '.join(sorted(ENDINGS))}" if pattern is None else f"fit {pattern}"
    count, whole = len(others), len(others) + documents
    return f"{count} of {whole} files left out, such as {others[0].name}: names must {rule} (--pattern '*': all)"


def _folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder, and the names of the files in it."""
    known: set[tuple[int, int]] = set()

    def is_new(path: Path) -> bool:
        """Links may lead to where one has been, even in a circle."""
        status = path.stat()
        place = status.st_dev, status.st_ino
        new = place not in known
        known.add(place)
        return new

    try:
        is_new(folder)
        for here, folders, files in os.walk(folder, onerror=_cannot_list, followlinks=True):
            inner = sorted(name for name in folders if not name.startswith("."))
            folders[:] = [name for name in inner if is_new(Path(here, name))]
            yield Path(here), [name for name in files if not name.startswith(".")]
    except OSError as error:
        raise unreadable(Path(error.filename), error) from None


def read_folder(
    folder: Path, directory: Path, *, encoding: str = "utf-8", pattern: str | None = None, progress: bool = False
) -> None:
    """Read a folder of plain text, each file a document.

    Args:
        folder: Its files are found by `text_files`.
        directory: Where the corpus is written.
        encoding: Of the files.
        pattern: See `text_files`.
        progress: Show a bar if stderr is a terminal.

    Raises:
        ConfigError: A file cannot be read or has another encoding, or no word is left.
    """
    files, name = text_files(folder, pattern)[0], folder.absolute().name
    rows, words, counts, vocabulary = count_words(
        _texts(files, name, encoding, progress), fewest=FEWEST_DOCUMENTS, share=LARGEST_SHARE, what=str(folder)
    )
    write_entries(directory, words, counts)
    complete(directory, rows, vocabulary, name)


def _texts(files: list[Path], name: str, encoding: str, progress: bool) -> Iterator[str]:
    """What is in the files, one at a time."""
    done_bytes = 0
    with reading(name, sum(path.stat().st_size for path in files), show=progress) as tick:
        for path in files:
            try:
                content = path.read_bytes()
                yield content.decode(encoding)
            except OSError as error:
                raise unreadable(path, error) from None
            except UnicodeError as error:
                line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
                why = getattr(error, "reason", error)
                raise ConfigError(f"{path}: line {line}: not {encoding.upper()}: {why} (--encoding)") from None
            done_bytes += len(content)
            tick(done_bytes)


def _cannot_list(error: OSError) -> Any:
    raise error
