"""The sections that every application's configuration has: frozen dataclasses, each field with unit, symbol and
source.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from hsa2c.interpreter import at_home

#: Every section is declared with these: frozen, keyword-only, no unknown keys, no silent conversion of types.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


#: A path as text; ``~`` is the user's home.
PathText = Annotated[str, Field(min_length=1), AfterValidator(at_home)]


def _two_bytes(dtype: Any) -> Any:
    """Runs and scripts of 0.1 may name float16: bfloat16 has as many bytes, and less to compute."""
    return "bfloat16" if dtype == "float16" else dtype


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ClusterConfig:
    """Who computes."""

    nodes: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Nodes (MPI ranks beside the master's). nW in section 4.1. Not given, with `hosts`: the sum of their slots; in an
    allocation of Slurm or PBS: the number of its hosts."""

    hosts: PathText | None = None
    """File of the hosts to run on, one a line. A line may have ``slots=N`` (1): its nodes before the next host gets
    one. It may have ``p=K``: their processes. The master runs on the first host. allocation: the hosts of the Slurm or
    PBS job that this is. So it is, too, if nothing is given in a job that has other hosts than this one. None: this
    machine."""

    processes: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Actor-learner processes on each node. p. None: what its host in `hosts` says, or its share of the cores, in an
    allocation less one."""

    spares: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Nodes that are started as well, and wait until one of the others is lost (MPI only)."""

    masters: Annotated[int, Field(ge=1, le=1000)] = 1
    """Ranks that hold a slice of v each, and share the messages and sums (MPI only). One is enough until it is busy for
    half of the time; the paper has one."""

    restarts: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How often a run that has failed, its master lost for example, goes on by itself from its newest checkpoint."""

    absence_s: Annotated[float, Field(ge=2, le=3600)] = 15.0
    """Seconds of silence after which a node is not waited for, until it is heard again; a node reports each second."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DPSGDConfig:
    """The constants of Algorithm 1 and of Algorithm 2's outer loop."""

    local_updates: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"] = 8
    """Updates each process applies between two exchanges. B. auto: each node begins with 1 and takes the fewest that
    keep what it loses to exchanges at `exchange_share` (`hsa2c.node.pace`)."""

    most_local_updates: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    """The most that local_updates = auto may choose."""

    exchange_share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """With local_updates = auto: the share of its time that a node may lose to exchanges."""

    rate_local_updates: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    """With local_updates = auto: the B that the local learning rate is meant for; with another it is multiplied by
    (rate_local_updates / B)^0.25 (Eq. 13)."""

    exchange: Literal["auto", "overlap", "paper", "synchronous"] = "auto"
    """paper: a node's processes stop for an exchange (Algorithm 2), so they wait for the slowest of them and for the
    master. overlap: they go on meanwhile (`hsa2c.dpsgd.worker.overlapping_worker`). auto: overlap, but paper where one
    process is all there is, or where the application cannot overlap. synchronous: as paper, and the master answers no
    pull before its next global step. With M the number of nodes all work at the same v (Adamski et al. 2018)."""

    deltas_per_step: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Deltas the master sums before one global step. M. None: the number of nodes, as in section 4.2.1."""

    global_rate: Annotated[float, Field(gt=0, le=100)] | None = None
    """Global learning rate. rho. None: such that rho * M / (1 - momentum) = global_factor."""

    global_factor: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Long-run factor on the mean delta, rho * M / (1 - momentum), kept whatever the number of nodes; used where
    global_rate is None."""

    rescale_rate: bool | None = None
    """Whether rho is multiplied by M / m where m deltas make a step instead of M, since nodes are lost. None: where
    global_rate is not given."""

    max_delay: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Delay of a delta, in global steps, from which on it counts for less: max_delay / delay. D' of Assumption 5. None:
    10 times the number of nodes for each delta of a step, rounded up. Only a node that was stopped or cut off exceeds
    that."""

    delta_dtype: Annotated[Literal["float32", "bfloat16", "int8"], BeforeValidator(_two_bytes)] = "float32"
    """How a delta goes to the master, and what is new in v to the nodes: in 4, 2 or 1 bytes a number. What rounding
    takes from one delta is added to the node's next (error feedback: Seide et al. 2014, Karimireddy et al. 2019). See
    `hsa2c.transport.codec` and `hsa2c.transport.v_delta`. float16, which 0.1 had as well, is bfloat16 now."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of the global step. mu. Algorithm 1 is 0; the paper's HSA2C used 0.5."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimiserConfig:
    """Line 6 of Algorithm 2: how a gradient changes u. State is shared by a node's processes, kept across pulls."""

    name: Literal["sgd", "rmsprop", "adam"] = "adam"
    """sgd (the paper's Algorithm 2), rmsprop (Mnih et al. 2016) or adam (Adamski et al. 2018)."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Local learning rate at the start. eta."""

    half_after: Annotated[float, Field(gt=0, le=1e15)] | None = None
    """Work of a node (`Tracker.work`) after which the local learning rate has fallen to a half. It is
    learning_rate / (1 + work / half_after). Its sum diverges and that of its squares does not (Robbins and Monro 1951).
    Of a node, not of all: v moves by the mean of the nodes' deltas. None: it does not fall."""

    anneal: bool = False
    """Fall, also, linearly to 0 at the run's limit, on work or on `stop.minutes`, whichever is nearer."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Adam: decay of the mean of gradients, its momentum (Kingma and Ba 2015, 0.9; Adamski et al. 2018, 0.8). 0: none,
    for processes that share u without a lock are a momentum of their own (Mitliagkas et al. 2016;
    docs/lab/2026-11-performance.md)."""

    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Adam: decay of the mean of squared gradients."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """RMSProp: decay of the mean of squared gradients (Mnih et al. 2016, 0.99)."""

    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Adam and RMSProp: added to the root of the mean square."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StopConfig:
    """When training ends by itself; None never. An application with limits of its own has a section of its own."""

    minutes: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Wall-clock of training, start-up excluded, resumes included."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UpdateStopConfig(StopConfig):
    """When training ends by itself, where work is counted in updates."""

    updates: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """Of u, over all nodes and processes; resumes included."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OutputConfig:
    """What a run writes, and where."""

    run_dir: PathText = "runs"
    """Folder that holds runs."""

    name: Name | None = None
    """Name of this run in it. None: what it is of, date and time."""

    log_every_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """Seconds between two rows of metrics.jsonl and TensorBoard; they come sooner in the first 20 s."""

    checkpoint_every_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds between two checkpoints: the most work that a kill -9 of everything can lose."""

    keep_checkpoints: Annotated[int, Field(ge=1, le=1000)] = 3
    """Newest checkpoints kept, beside the best one."""

    record: bool = False
    """Whether the master writes down each delta that comes, and in which order, for ``--replay``: in float32 4 bytes
    for each number of v. Not with several masters."""

    record_gib: Annotated[float, Field(gt=0, le=1e6)] = 8.0
    """GiB that a session's recording may have; then it ends, and training goes on."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """A run of an application that has no settings of its own."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Seed of everything random."""

    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    dpsgd: DPSGDConfig = dataclasses.field(default_factory=DPSGDConfig)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    stop: UpdateStopConfig = dataclasses.field(default_factory=UpdateStopConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)
