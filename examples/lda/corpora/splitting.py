"""Which documents are for training, for validation and for testing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora.corpus import Corpus


@dataclass(frozen=True, eq=False)
class Split:
    """Numbers of documents, ascending; none is in two parts, and empty ones are in none."""

    training: NDArray[np.int32]
    """[documents for training], at least one"""

    validation: NDArray[np.int32]
    """[documents for validation]"""

    test: NDArray[np.int32]
    """[documents for testing]"""


def split(corpus: Corpus, *, validation: float, test: float, seed: int) -> Split:
    """Deal a corpus's documents that are not empty into three parts.

    A part is the same whatever the size of the other, and a larger one holds a smaller one of the same seed.

    Args:
        corpus: Whose documents.
        validation: How many for validation: a number, or, below 1, a share, rounded but then at least one; 0 is none.
        test: The same for testing.
        seed: Of the choice.

    Raises:
        ConfigError: A size is neither, or no document is left for training.
    """
    documents = np.flatnonzero(np.diff(corpus.indptr)).astype(np.int32)
    for_validation = _size("validation", validation, len(documents))
    for_test = _size("test", test, len(documents))
    for_training = len(documents) - for_validation - for_test
    if for_training < 1:
        raise ConfigError(
            f"validation = {validation}, test = {test}: must leave documents for training: {for_validation} and "
            f"{for_test} of the {len(documents)} in {corpus.name} that are not empty"
        )
    dealt = np.random.default_rng(seed).permutation(documents)
    # From both ends, so that neither depends on how many the other takes.
    parts = np.split(dealt, [for_test, for_test + for_training])
    tested, trained, validated = (np.sort(part) for part in parts)
    return Split(trained, validated, tested)


def _size(name: str, value: float, documents: int) -> int:
    """A number or a share as a number."""
    if 0 < value < 1:
        return max(1, round(value * documents))
    if value < 0 or value != value // 1:  # also what is no number
        raise ConfigError(f"{name} = {value}: must be a number of documents, or a share of them below 1")
    return int(value)
