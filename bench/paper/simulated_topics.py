"""DPSVI over the simulated clock: real topics of a real corpus, found in modelled time.

`hsa2c.dpsgd.master.master` and `hsa2c.dpsgd.worker.worker` run as they are, each update is a real batch's, at the u_hat
that the modelled delays give it; how long updates, messages and the master's work take is told. So a machine of two
cores shows what staleness, B and the rates of Eq. 13 do to 19 workers.

    python -m bench.paper.simulated_topics '{"nodes": 4, "p": 1, "B": 1, "M": 36, ...}'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hsa2c.cluster.machine import cap_threads

cap_threads()

import numpy as np  # noqa: E402

from hsa2c.dpsgd.master import master  # noqa: E402
from hsa2c.dpsgd.problem import Problem  # noqa: E402
from hsa2c.dpsgd.protocols import Monitor, Push, Vector  # noqa: E402
from hsa2c.dpsgd.steps import GlobalStep  # noqa: E402
from hsa2c.dpsgd.worker import worker  # noqa: E402
from hsa2c.examples.lda.application import initial_counts  # noqa: E402
from hsa2c.examples.lda.batches import Gatherer, endless  # noqa: E402
from hsa2c.examples.lda.corpora import Corpus, open_corpus, split  # noqa: E402
from hsa2c.examples.lda.dpsvi import LocalStep, Model, UHat  # noqa: E402
from hsa2c.examples.lda.perplexity import HeldOut  # noqa: E402
from hsa2c.examples.lda.rates import paper_rate  # noqa: E402
from hsa2c.simulation.clock import SimulatedClock  # noqa: E402
from hsa2c.simulation.links import Link, Sizes, Work  # noqa: E402
from hsa2c.simulation.network import connect  # noqa: E402
from hsa2c.simulation.process_pool import UpdateTimes  # noqa: E402
from hsa2c.simulation.stepped_pool import SteppedPool  # noqa: E402

_VARIATION = 0.3  # standard deviation of an update's time over its mean


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A run."""

    nodes: int
    p: int
    B: int
    M: int
    topics: int = 50
    batch: int = 64
    update_s: float = 0.3
    """Of one process. Tu."""
    v_bytes: float = 4 * 50 * 102_660
    """Of v, and of a delta, on the wire: by default the paper's K = 50 and 102,660 words, in float32."""
    bits_per_s: float = 10e9
    """Of each link, each way."""
    latency_s: float = 1e-4
    master_s: float = 1.2e-9
    """Processor time of the master for an exchange, for each byte of v: `hsa2c.simulation.planning` takes 3.2 ms for
    2.7 MB."""
    passes: float = 40.0
    """Through the training set, at most."""
    perplexity: float = 0.0
    """Of the validation documents, at which it ends."""
    seed: int = 1


class Documents(Problem):
    """The natural gradient of a batch at u_hat, lambda - eta0 as a whole."""

    def __init__(self, corpus: Corpus, D: int, batches: Iterator[Any], model: Model) -> None:
        self._gather, self._batches, self._model = Gatherer(corpus), batches, model
        self._D, self._V = D, corpus.V
        self._local_step = LocalStep(model)

    def gradient(self, u_hat: Vector, interrupted: Callable[[], bool]) -> Any:
        """Rows, and what eta is multiplied by there; see `hsa2c.examples.lda.topics`."""
        batch = self._gather(next(self._batches))
        x = u_hat.reshape(self._V, self._model.K)
        totals = np.float32(self._model.eta0 * self._V) + x.sum(axis=0)
        s, _ = self._local_step(batch, UHat(x[batch.rows], totals))
        return batch.rows, s * np.float32(self._D / batch.documents)

    def report(self) -> Mapping[str, Any]:
        """See `Problem`."""
        return {}

    def close(self) -> None:
        """See `Problem`."""


class Curve(Monitor):
    """Perplexity of the validation documents after each global step."""

    def __init__(self, clock: SimulatedClock, s: Setting, model: Model, held_out: HeldOut, most_pushes: float) -> None:
        self._clock, self._s, self._model, self._held_out = clock, s, model, held_out
        self._most_pushes, self._pushes = most_pushes, 0
        self.seconds: list[float] = []
        self.perplexity: list[float] = []
        self.negative = 0
        self._over = False

    def stopping(self) -> bool:
        """See `Monitor`, here and below."""
        return self._over

    def received(self, push: Push, tau: int) -> None:
        """Counts the work."""
        self._pushes += 1
        self._over = self._over or self._pushes >= self._most_pushes

    def stepped(self, t: int, v: Vector) -> None:
        """Measures."""
        self.negative += int((v < 0).sum())
        self.seconds.append(self._clock.now)
        self.perplexity.append(self._held_out.score(v, self._model).perplexity)
        self._over = self._over or self.perplexity[-1] <= self._s.perplexity


def simulate(s: Setting, source: str = "pydocs", vocabulary: str | None = None) -> dict[str, Any]:
    """One run; gives back its curve: modelled seconds and perplexity, lists, and entries of v below zero."""
    corpus = open_corpus(source, None if vocabulary is None else Path(vocabulary))
    parts = split(corpus, validation=0.05, test=0.05, seed=s.seed)
    model = Model(K=s.topics, alpha=1 / s.topics, eta0=1 / s.topics, mean=False, tolerance=1e-3, most_iterations=100)
    rate = paper_rate(p=s.p, B=s.B, M=s.M)
    clock = SimulatedClock()
    most_pushes = s.passes * parts.training.size / (s.batch * s.p * s.B)
    monitor = Curve(clock, s, model, HeldOut(corpus, parts.validation), most_pushes)
    master_s = s.master_s * s.v_bytes
    port, workers = connect(
        clock,
        s.nodes,
        node_link=Link(bytes_per_s=s.bits_per_s / 8, latency_s=s.latency_s),
        sizes=Sizes(v=int(s.v_bytes), delta=int(s.v_bytes), state=0, text=100),
        work=Work(message_s=5e-5, push_s=0.6 * master_s, answer_s=0.4 * master_s),
    )
    shape = (corpus.V, s.topics)

    def step(u: Vector, g: Any, rate_scale: float) -> None:
        rows, towards = g
        u *= np.float32(1.0 - rate)  # as `hsa2c.examples.lda.topics` does: u shrinks, not u_hat
        u.reshape(shape)[rows] += np.float32(rate) * towards

    def lead() -> None:
        v = initial_counts(corpus.V * s.topics, s.seed)
        if port.assemble(monitor):
            master(v, GlobalStep(rate, 0.0, v.size), port, monitor, s.M)

    clock.start(lead)
    times = UpdateTimes(s.update_s, _VARIATION, seed=s.seed)
    for node, end in enumerate(workers):
        part = range(node * s.p, (node + 1) * s.p)
        streams = [endless(parts.training, s.batch, seed=s.seed, part=k, parts=s.nodes * s.p) for k in part]
        problems = [Documents(corpus, parts.training.size, stream, model) for stream in streams]
        pool = _Clamped(problems, step, corpus.V * s.topics, clock, times, keep_s=float("inf"))
        clock.start(worker, end, pool, s.B)
    try:
        clock.run()
    finally:
        clock.close()
    return {"seconds": monitor.seconds, "perplexity": monitor.perplexity, "negative": monitor.negative}


class _Clamped(SteppedPool):
    """A node that reads entries of v below zero as zero, as `hsa2c.examples.lda.topics.TopicsLayout.enter` does."""

    def start(self, v: Vector, B: int, *, rate_scale: float, forever: bool = True) -> None:
        """See `SteppedPool`."""
        super().start(np.maximum(v, 0), B, rate_scale=rate_scale, forever=forever)


def main(text: str) -> int:
    """Print the curve of a setting as JSON."""
    values = json.loads(text)
    source, vocabulary = values.pop("source", "pydocs"), values.pop("vocabulary", None)
    s = Setting(**values)
    print(json.dumps({**asdict(s), **simulate(s, source, vocabulary)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
