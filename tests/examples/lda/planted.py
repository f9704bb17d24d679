"""Documents drawn from the model itself, so that their topics are known."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tests.examples.lda.reference import corpus_of


@dataclass
class Planted:
    """A small corpus of latent Dirichlet allocation; each topic has most of its weight on few words."""

    documents: int = 400
    K: int = 5
    V: int = 120
    alpha: float = 0.15
    tokens: float = 60.0
    seed: int = 0

    @cached_property
    def topics(self):
        """beta, float64 [K, V]."""
        return np.random.default_rng([self.seed, 1]).dirichlet(np.full(self.V, 0.05), self.K)

    @cached_property
    def counts(self):
        """How often each document has each word, [documents, V]."""
        random = np.random.default_rng([self.seed, 2])
        theta = random.dirichlet(np.full(self.K, self.alpha), self.documents)
        lengths = np.maximum(random.poisson(self.tokens, self.documents), 2)
        return np.array([random.multinomial(n, p @ self.topics) for n, p in zip(lengths, theta, strict=True)])

    @cached_property
    def corpus(self):
        """The same as a `Corpus` in memory."""
        return corpus_of([[(w, row[w]) for w in np.flatnonzero(row)] for row in self.counts], self.V)

    @property
    def unigram(self):
        """Perplexity of who knows how frequent each word is, and nothing of topics."""
        share = self.counts.sum(axis=0) / self.counts.sum()
        return float(np.exp(-np.sum(share[share > 0] * np.log(share[share > 0]))))

    def write_uci(self, folder, name="docword.planted.txt"):
        """Files of counts and of words; gives back their paths."""
        lines = [f"{d + 1} {w + 1} {row[w]}" for d, row in enumerate(self.counts) for w in np.flatnonzero(row)]
        folder.mkdir(parents=True, exist_ok=True)
        counts, words = folder / name, folder / "vocab.txt"
        counts.write_text("\n".join([str(self.documents), str(self.V), str(len(lines)), *lines]) + "\n")
        words.write_text("".join(f"word{w}\n" for w in range(self.V)))
        return counts, words
