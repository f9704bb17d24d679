"""What is modelled of a virtual cluster: links, the time of an update, who is slow, who dies. Kept with its run."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hsa2c.commands.cluster_options import numbers, read_link, update_times, within
from hsa2c.errors import ConfigError
from hsa2c.node.layout import Layout
from hsa2c.run.directory import SIMULATED
from hsa2c.simulation.cluster import Cluster
from hsa2c.simulation.learning_pool import Times
from hsa2c.simulation.process_pool import UpdateTimes
from hsa2c.transport.codec import Encoding

_NUMBER_BYTES = {Encoding.FLOAT32: 4, Encoding.BFLOAT16: 2, Encoding.INT8: 1}


@dataclass(frozen=True, kw_only=True)
class Model:
    """Options as they were typed, or their defaults; those of `hsa2c plan` have its names and meanings."""

    link: str = "10Gbit,0.1ms"
    master_link: str | None = None
    stragglers: str = "0,1"
    node_hours: float | None = None
    """None: nodes do not die."""
    master_ms: str = "2,1.2"
    node_ms: float = 3.0
    update_ms: float | None = None
    """None: it is still to be measured."""
    gathering: float = 0.5
    """Share of `update_ms` that goes into rollouts."""
    variation: float = 0.3
    update_times: tuple[float, ...] | None = None
    """Measured ones, in seconds; nothing is known of rollouts apart then."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """What nodes chose for themselves at the start (`Application.describe`): a resumed run keeps it."""

    def typed(self, options: argparse.Namespace) -> Model:
        """With what the command line says.

        Raises:
            ConfigError: An option is wrong.
        """
        given = {
            each.name: getattr(options, each.name)
            for each in dataclasses.fields(self)
            if getattr(options, each.name, None) is not None
        }
        if path := given.get("update_times"):
            given["update_times"] = update_times(path)
        model = dataclasses.replace(self, **given)
        model.check()
        return model

    def check(self) -> None:
        """Refuse what no cluster has.

        Raises:
            ConfigError: There is such a thing.
        """
        read_link("--link", self.link)
        self._master_link()
        share, times = numbers("--stragglers", self.stragglers, 2)
        within("--stragglers", share, 0, 1)
        within("--stragglers", times, 1, 1e6)
        for milliseconds in numbers("--master-ms", self.master_ms, 2):
            within("--master-ms", milliseconds, 0, 1e6)
        for name, value, least, most in (
            ("--node-hours", self.node_hours, 1e-6, math.inf),
            ("--node-ms", self.node_ms, 0, 1e7),
            ("--update-ms", self.update_ms, 1e-3, 1e7),
            ("--gathering", self.gathering, 0, 0.999),
            ("--variation", self.variation, 0, 10),
        ):
            if value is not None:
                within(name, value, least, most)

    def _master_link(self) -> Any:
        return None if self.master_link is None else read_link("--master-link", f"{self.master_link},0ms")

    @property
    def timed(self) -> bool:
        """Whether it is known how long an update takes."""
        return self.update_ms is not None or self.update_times is not None

    def cluster(self, config: Any, p: int, layout: Layout) -> Cluster:
        """What is simulated, of a run with this configuration."""
        run, encoding = config.dpsgd, Encoding[config.dpsgd.delta_dtype.upper()]
        share, times = numbers("--stragglers", self.stragglers, 2)
        push_ms, answer_ms = numbers("--master-ms", self.master_ms, 2)
        return Cluster(
            nodes=config.cluster.nodes,
            cores=p,
            B=run.local_updates,
            masters=config.cluster.masters,
            link=read_link("--link", self.link),
            master_link=self._master_link(),
            stragglers=(share, times),
            node_hours=math.inf if self.node_hours is None else self.node_hours,
            parameters=layout.size,
            delta_bytes=_NUMBER_BYTES[encoding],
            state_vectors=round(layout.state_size / layout.size),
            M=run.deltas_per_step,
            push_s=push_ms / 1000,
            answer_s=answer_ms / 1000,
            node_s=self.node_ms / 1000,
            keep_s=0.8 * config.output.checkpoint_every_s,  # as `hsa2c.run.node.make_pool`
            seed=config.seed,
        )

    def times(self, seed: int) -> Times:
        """How long updates take. A rollout is the work of many updates, so it varies less: its noise evens out."""
        if self.update_times is not None:
            return Times(UpdateTimes(0.0, samples=self.update_times, seed=seed))
        assert self.update_ms is not None, "it was measured"
        update_s = self.update_ms / 1000
        gradient = UpdateTimes((1 - self.gathering) * update_s, self.variation, seed=seed)
        if not self.gathering:
            return Times(gradient)
        return Times(gradient, UpdateTimes(self.gathering * update_s, self.variation / 4, seed=seed + 1))

    def save(self, directory: Path) -> None:
        """Write it into a run's directory."""
        values = {**dataclasses.asdict(self), "update_times": self.update_times and list(self.update_times)}
        (directory / SIMULATED).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def load(directory: Path) -> Model:
    """The model of a run.

    Raises:
        ConfigError: It has none, or a broken one.
    """
    path = directory / SIMULATED
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        times = values.pop("update_times")
        model = Model(**values, update_times=times and tuple(times))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"--resume {directory}: is no virtual run: {SIMULATED}: {error}") from None
    model.check()
    return model
