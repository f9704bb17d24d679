"""What the runtime needs of an application of DPSGD."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from hsa2c import interpreter
from hsa2c.cluster.capacity import Footprint
from hsa2c.config.sections import ClusterConfig, DPSGDConfig, OptimiserConfig, OutputConfig
from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ConfigError
from hsa2c.observe.shown import Field
from hsa2c.words import CommandWords, PictureWords, PreflightWords

if TYPE_CHECKING:
    from hsa2c.node.layout import Layout


class RateConfig(Protocol):
    """What the master's monitor needs of the local optimiser's section; `hsa2c.config.sections.OptimiserConfig` says
    more.
    """

    @property
    def learning_rate(self) -> float | None:
        """Local learning rate at the start; None: the application's tracker reports it, as ``rate/eta``."""

    @property
    def half_after(self) -> float | None:
        """Work of a node after which it has fallen to a half."""

    @property
    def anneal(self) -> bool:
        """Fall to 0 at the run's limit."""


class LimitConfig(Protocol):
    """What the runtime needs of the section on when to stop."""

    @property
    def minutes(self) -> float | None:
        """Wall-clock of training."""


class RunConfig(Protocol):
    """The sections every application's configuration has."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""

    @property
    def cluster(self) -> ClusterConfig:
        """Who computes."""

    @property
    def dpsgd(self) -> DPSGDConfig:
        """Algorithm 1 and 2."""

    @property
    def optimiser(self) -> RateConfig:
        """Line 6."""

    @property
    def stop(self) -> LimitConfig:
        """When to end."""

    @property
    def output(self) -> OutputConfig:
        """What is written, and where."""


class Tracker(Protocol):
    """Makes curves of the problems' reports; lives at the master.

    Attributes:
        work: Units of work done in the whole run, resumes included: the horizontal axis of every curve.
    """

    work: int

    @property
    def quality(self) -> float | None:
        """What the best checkpoint is best at, higher is better; None while too little is known."""

    def add(self, node: int, report: Mapping[str, Any]) -> None:
        """Take in one problem's report."""

    def measure(self, v: Vector, *, due: bool) -> bool:
        """Look at v, after each global step; where `quality` is a property of v, this may be when it is measured.

        Args:
            v: The global parameter.
            due: A checkpoint of v is about to be written: `quality` must be v's.

        Returns:
            Whether `quality` was measured.
        """
        return False

    def row(self, seconds: float) -> dict[str, float | int | None]:
        """Values of the curves now; means are over the `seconds` since the last row."""

    def warning(self) -> str | None:
        """What its user should worry about, as of the last row; None if nothing."""

    def counters(self) -> dict[str, Any]:
        """JSON values from which a tracker goes on when the run is resumed."""

    def reached(self) -> str | None:
        """The stop condition that holds, in words."""

    def progress(self) -> float:
        """Share of the limit on work that is done, 0 to 1; 0 without a limit."""


class ProblemFactory(Protocol):
    """Makes the problem of one actor-learner, in its process."""

    def __call__(self, index: int) -> Any:
        """The `Problem` of the process with this index on its node."""


class Application(Protocol):
    """One use of the DPSGD core. Nothing here may import torch until `initial` or `problems` is called."""

    name: str
    fields: Sequence[Field]
    """What the console shows."""
    curve: Field
    """What it draws."""
    fixed: ClassVar[Sequence[str]] = ()
    """Settings, by dotted name, that a resumed run keeps: others of them would make it another run."""
    summary: ClassVar[Mapping[str, str]] = {}
    """What ``--json`` says of a finished run beside what all have: name to key of a row."""
    earlier_modules: ClassVar[Sequence[str]] = ()
    """Names that its module has had: recordings of earlier versions have them."""
    overlaps: ClassVar[bool] = True
    """Whether its processes may go on during an exchange: its layout is `Layout.in_place`."""
    command: ClassVar[CommandWords] = CommandWords()
    """What its command line says."""
    pictures: ClassVar[PictureWords] = PictureWords()
    """What its curves and pages say."""
    preflight: ClassVar[PreflightWords] = PreflightWords()
    """What ``doctor`` says."""

    def label(self, config: Any) -> str:
        """The first part of a run's name, where its user gives none."""

    def title(self, config: Any) -> str:
        """What runs, in one line."""

    def limits(self, config: Any) -> dict[str, float]:
        """Where training ends by itself, wall-clock aside: key of a row to its limit."""

    def identity(self, config: Any) -> dict[str, str]:
        """What a checkpoint and a run must agree on."""

    def resolve(self, config: Any) -> Any:
        """`config` with what was left to rules of this application; the cluster is resolved already.

        Raises:
            ConfigError: What belongs together does not fit.
        """
        return config

    def remarks(self, config: Any) -> Sequence[str]:
        """What its user should know before a run begins; `config` is resolved."""
        return ()

    def check(self, config: Any) -> None:
        """Load what only this application needs, so that ``doctor`` knows whether a host has it; it raises if not."""
        self.identity(config)

    def on_host(self, config: Any, processes: int, cores: int) -> Any:
        """A node's `config` with what follows from the host that it shares.

        Args:
            config: The node's own.
            processes: Actor-learners there, of all nodes.
            cores: That they share.
        """
        return config

    def starting(self, config: Any) -> str:
        """What starts, in numbers, for those who wait until it has; empty: nothing that takes long."""
        return ""

    def footprint(self, config: Any) -> Footprint:
        """Of an actor-learner; `config` is its node's own (`at_node`)."""
        return Footprint(memory_bytes=5 << 20, tasks=1)

    def dim(self, config: Any) -> int:
        """Length of v."""

    def initial(self, config: Any) -> Vector:
        """v_0, float32 [dim]."""

    def layout(self, config: Any) -> Layout:
        """How a node holds u: a copy of v that the configured optimiser changes, where an application has no other."""
        return dense_layout(self.dim(config), config.optimiser)

    def problems(self, config: Any, node: int, t: int) -> ProblemFactory:
        """For the processes of a node, at global step t; imports what they need, before they are forked.

        Here, in `work_per_update` and in `describe`, `config` is the node's own (`at_node`).
        """

    def tracker(self, config: Any, counters: Mapping[str, Any]) -> Tracker:
        """A tracker that goes on from `counters`; they are empty at the start of a run."""

    def work_per_update(self, config: Any) -> float:
        """Units of work (`Tracker.work`) behind an update of u, on the average."""
        return 1.0

    def describe(self, config: Any) -> dict[str, Any]:
        """What a node should say of itself once it is ready."""

    def chosen(self, config: Any, said: Mapping[str, Any]) -> Any:
        """`config` with what a node has chosen for itself, as `describe` said of it, so that others choose the same."""
        return config

    def build_config(self, values: Mapping[str, Any]) -> Any:
        """Plain values into this application's configuration."""


def at_node(app: Application, config: Any, processes: int, *, nodes: int, cores: int) -> Any:
    """`config` as a node has it, for what an application leaves to the number of processes.

    Args:
        app: The application.
        config: The run's.
        processes: Of the node, p.
        nodes: That share its host, itself included.
        cores: That they share.
    """
    config = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, processes=processes))
    return app.on_host(config, nodes * processes, cores)


def dense_layout(dim: int, optimiser: OptimiserConfig) -> Layout:
    """The layout of a parameter that is read and changed as a whole."""
    from hsa2c.node.layout import DenseLayout
    from hsa2c.node.optimiser import Rule

    rule = Rule(
        name=optimiser.name,
        learning_rate=optimiser.learning_rate,
        beta1=optimiser.beta1,
        beta2=optimiser.beta2,
        decay=optimiser.decay,
        epsilon=optimiser.epsilon,
    )
    return DenseLayout(dim, rule)


def load(name: str) -> Application:
    """The application in a module's `APPLICATION`: for a command, the launcher, a rank, and what forks the nodes.

    Args:
        name: As for `locate`.

    Raises:
        ConfigError: There is no such module, or no application in it.
    """
    return cast("Application", importlib.import_module(locate(name)).APPLICATION)


def locate(name: str) -> str:
    """The module that has the `APPLICATION` which a user means.

    A module is known by its name alone. It is installed, or lies in the current directory, which child processes have
    from their parent, also those that mpiexec starts on other hosts.

    Args:
        name: A module that has one, or a package whose module `application` has one.

    Raises:
        ConfigError: There is no such module, or no application in it.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"application {name!r}: must be the name of a module")
    interpreter.find(name)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # of what it imports itself
        raise ConfigError(f"application {name}: no such module is installed, or in the current directory") from None
    if hasattr(module, "APPLICATION"):
        return name
    inside = f"{name}.application"
    if hasattr(module, "__path__") and importlib.util.find_spec(inside) is not None:
        return locate(inside)
    raise ConfigError(f"application {name}: the module has no APPLICATION")
