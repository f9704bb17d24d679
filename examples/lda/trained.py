"""Topics of a finished or running training: read from its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsa2c.commands.options import tell_skipped
from hsa2c.errors import CheckpointError, ConfigError
from hsa2c.examples.lda import application
from hsa2c.examples.lda.corpora import Corpus, Split
from hsa2c.examples.lda.dpsvi import Model
from hsa2c.examples.lda.settings import LDAConfig
from hsa2c.run import checkpoint as checkpoints

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A checkpoint of topics, with what it was trained on."""

    path: Path
    """The checkpoint."""
    config: LDAConfig
    x: Floats
    """lambda - eta0, float32 [V, K], nothing negative."""
    corpus: Corpus
    parts: Split
    model: Model
    documents: int
    """Processed in training."""

    @property
    def beta(self) -> Floats:
        """Words of each topic, float32 [K, V]: E[beta], rows sum to 1."""
        rows = self.x.T + np.float32(self.model.eta0)
        topics: Floats = rows / rows.sum(axis=1, keepdims=True)
        return topics

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of the tokens that each topic explains, float64 [K]."""
        sums = self.x.sum(axis=0, dtype=np.float64)
        shares: NDArray[np.float64] = sums / max(sums.sum(), 1e-30)
        return shares


def load(target: Path, *, newest: bool = False, prog: str = "examples.lda") -> Trained:
    """The topics of a run (its best checkpoint if there is one, else the newest) or of a checkpoint file.

    Raises:
        CheckpointError: There is none, it is damaged, or of something else.
        ConfigError: Its corpus cannot be read any more, or has changed.
    """
    checkpoint, path, skipped = checkpoints.read(target, prefer="newest" if newest else "best")
    tell_skipped(prog, skipped)
    if (name := checkpoint.identity.get("application")) != application.APPLICATION.name:
        raise CheckpointError(f"{path}: is of {name!r}, not of topics")
    config = application.APPLICATION.build_config(checkpoint.config)
    corpus = application.corpus_of(config)
    if corpus.digest != checkpoint.identity.get("corpus"):
        raise ConfigError(f"{config.corpus.source}: is not the corpus any more that {path} was trained on")
    if checkpoint.v.size != (dim := corpus.V * config.model.topics):
        raise CheckpointError(f"{path}: holds {checkpoint.v.size} numbers, must be {dim}: words times topics")
    return Trained(
        path=path,
        config=config,
        x=np.maximum(checkpoint.v, 0).reshape(corpus.V, config.model.topics),
        corpus=corpus,
        parts=application.split_of(config),
        model=application.model_of(config),
        documents=int(checkpoint.counters.get("documents", 0)),
    )
