"""Plain text: documents as people wrote them, made into counts by scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.lda.corpora.extras import extra
from examples.lda.corpora.lines import unreadable
from examples.lda.corpora.progress import reading
from examples.lda.corpora.storage import complete, write_entries
from hsa2c.errors import ConfigError

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


def text_files(folder: Path) -> list[Path]:
    """The files of plain text in a folder and those below it, hidden ones left out, sorted.

    Raises:
        ConfigError: There are none, or a folder cannot be read.
    """
    found = []
    for here, folders, files in os.walk(folder, onerror=_cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(here, name) for name in files if Path(name).suffix.lower() in ENDINGS and not name.startswith(".")
        ]
    if not found:
        raise ConfigError(f"{folder}: has no plain text: no file that ends in {', '.join(sorted(ENDINGS))}")
    return sorted(found)


def read_folder(folder: Path, directory: Path, *, progress: bool = False) -> None:
    """Read a folder of plain text, each file a document.

    Args:
        folder: Its files are found by `text_files`.
        directory: Where the corpus is written.
        progress: Show a bar if stderr is a terminal.

    Raises:
        ConfigError: A file cannot be read or is not UTF-8, or no word is left.
    """
    texts = _texts(text_files(folder), folder.absolute().name, progress)
    rows, words, counts, vocabulary = count_words(texts, fewest=FEWEST_DOCUMENTS, share=LARGEST_SHARE, what=str(folder))
    write_entries(directory, words, counts)
    complete(directory, rows, vocabulary, folder.absolute().name)


def _texts(files: list[Path], name: str, progress: bool) -> Iterator[str]:
    """What is in the files, one at a time."""
    done_bytes = 0
    with reading(name, sum(path.stat().st_size for path in files), show=progress) as tick:
        for path in files:
            try:
                content = path.read_bytes()
                yield content.decode()
            except OSError as error:
                raise unreadable(path, error) from None
            except UnicodeDecodeError as error:
                line = content.count(b"\n", 0, error.start) + 1
                raise ConfigError(f"{path}: line {line}: not UTF-8: {error.reason}") from None
            done_bytes += len(content)
            tick(done_bytes)


def _cannot_list(error: OSError) -> Any:
    raise unreadable(Path(error.filename), error) from None
