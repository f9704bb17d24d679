"""Recordings of runs: where they lie, how one begins, and its repetition beside the run's checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsa2c.application import Application
from hsa2c.config.loading import to_dict
from hsa2c.config.protocol import RunConfig
from hsa2c.dpsgd.protocols import Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import CheckpointError, ConfigError
from hsa2c.recording.format import Recording
from hsa2c.recording.recorder import Recorder
from hsa2c.recording.replay import DifferenceError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.transport.codec import Encoding

if TYPE_CHECKING:
    from hsa2c.recording.recompute import Nodes, ReplayedPool

_NAME = re.compile(r"recording-(\d+)\.bin")


@dataclass(frozen=True, kw_only=True)
class Session:
    """A start of a run, to be recorded."""

    app: str
    """Module of what runs."""
    config: RunConfig
    directory: Path
    """The run's."""
    number: int
    """Which start of the run it is."""
    resumed: Path | None
    """The checkpoint that it goes on from."""
    rounds_v: bool
    """Whether what is new in v goes to the nodes in the encoding of deltas."""

    def about(self) -> dict[str, Any]:
        """What a recording says of it, as plain values."""
        return {
            "app": self.app,
            "session": self.number,
            "resumed": self.resumed and self.resumed.name,
            "config": to_dict(self.config),
        }


def begin(
    session: Session,
    *,
    v: Vector,
    step: GlobalStep,
    M: int,
    t: int,
    states: Sequence[Vector],
    tell: Callable[[str], None],
) -> Recorder:
    """Begin to record a session of a run.

    Args:
        session: What is recorded.
        v: The global parameter, float32 [dim].
        step: Line 3.
        M: Deltas in a global step.
        t: Global steps before.
        states: Optimisers' states at the start, by node.
        tell: See `Recorder`.
    """
    config, about = session.config, session.about()
    encoding = Encoding[config.dpsgd.delta_dtype.upper()]
    return Recorder(
        session.directory / f"recording-{session.number}.bin",
        v=v,
        step=step,
        M=M,
        max_delay=config.dpsgd.max_delay,
        t=t,
        states=states if why_not_recomputed(about["config"]) is None else (),
        encoding=encoding,
        v_encoding=encoding if session.rounds_v else Encoding.FLOAT32,
        about=about,
        limit_bytes=config.output.record_gib * 2**30,
        tell=tell,
    )


def find(target: Path) -> list[Path]:
    """The recordings that a user means: a run's, by session, or one file.

    Raises:
        ConfigError: There is none.
    """
    try:
        if target.is_file():
            return [target]
        found = {int(match[1]): path for path in target.iterdir() if (match := _NAME.fullmatch(path.name))}
    except OSError as error:
        raise ConfigError(f"{target}: no such run or recording: {error.strerror or error}") from None
    if not found:
        raise ConfigError(f"{target}: was not recorded (--record does it)")
    return [found[session] for session in sorted(found)]


class Beside:
    """The checkpoints of a recorded session that are still there, for its repetition to be compared with.

    Attributes:
        same: Names of those that were the same.
        unread: Of those that cannot be loaded, why.

    Args:
        recording: Of the session.
    """

    def __init__(self, recording: Recording) -> None:
        self._session = recording.about.get("session")
        self._paths = checkpoints.steps(recording.path.parent / checkpoints.FOLDER)
        self.same: list[str] = []
        self.unread: list[str] = []

    def start(self, recording: Recording) -> str | None:
        """Compare the start with the checkpoint that the session went on from, if it is still there; as `look`."""
        path = self._paths.get(recording.t)
        if path is None or path.name != recording.about.get("resumed"):
            return None
        try:
            checkpoint = checkpoints.load(path)
        except CheckpointError as error:
            self.unread.append(str(error))
            return None
        alike = _same(recording.v, checkpoint.v) and _same(recording.z, checkpoint.momentum)
        return None if alike else f"at the start: v and z are not those of {path.name}"

    def look(self, t: int, v: Vector, z: Vector) -> str | None:
        """Compare with the checkpoint of this t, if there is one; what is wrong, in words."""
        path = self._paths.get(t)
        if path is None:
            return None
        try:
            checkpoint = checkpoints.load(path)
        except CheckpointError as error:
            self.unread.append(str(error))
            return None
        if checkpoint.counters.get("sessions") != self._session:
            return None  # the run was resumed from an earlier one, and came by again
        if not _same(v, checkpoint.v):
            return f"v is not that of {path.name}"
        if not _same(z, checkpoint.momentum):
            return f"the velocity z is not that of {path.name}"
        self.same.append(path.name)
        return None


def why_not_recomputed(config: Mapping[str, Any]) -> str | None:
    """What keeps the nodes' work of a run from being repeated, in words; None if nothing is known to.

    Args:
        config: The run's, as plain values.
    """
    if config["dpsgd"]["exchange"] == "overlap":
        return "with --exchange overlap a node's processes do not stop for an exchange: how far they came was chance"
    if (p := config["cluster"]["processes"] or 1) > 1:
        return f"with p = {p} the processes of a node share u without a lock: their order was chance"
    if config["dpsgd"]["local_updates"] == "auto":
        return "with --B auto the number of updates, and the rate, followed the clock"
    return None


def nodes(recording: Recording, app: Application) -> Nodes:
    """The nodes of a recorded session, to work again; v at the start of a run is checked.

    Raises:
        DifferenceError: It is not the seed's.
    """
    import torch

    from hsa2c.recording.recompute import Nodes, ReplayedPool

    torch.set_num_threads(1)
    about = recording.about
    config = app.build_config(about["config"])
    if about["resumed"] is None and not _same(app.initial(config), recording.v):
        raise DifferenceError(f"at the start: v is not what seed {config.seed} gives here")

    def make_pool(node: int, said: Mapping[str, Any], state: Vector | None) -> ReplayedPool:
        chosen = app.chosen(config, said)
        problem = app.problems(chosen, node, recording.t)(0)
        return ReplayedPool(problem, app.layout(chosen), state=state)

    return Nodes(
        make_pool,
        config.dpsgd.local_updates,
        encoding=Encoding[about["encoding"]],
        v_encoding=Encoding[about["v_encoding"]],
    )


def _same(a: Vector, b: Vector) -> bool:
    return np.array_equal(a.view(np.uint32), b.view(np.uint32))
