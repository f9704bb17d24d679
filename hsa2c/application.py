"""What the runtime needs of an application of DPSGD."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hsa2c import names
from hsa2c.cluster.capacity import Footprint
from hsa2c.config.loading import build
from hsa2c.config.sections import Config
from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ConfigError
from hsa2c.observe.shown import Field
from hsa2c.tracker import Evaluation, Tracker
from hsa2c.words import Card, CommandWords, Option, PictureWords, PreflightWords

if TYPE_CHECKING:
    from hsa2c.node.layout import Layout


class ProblemFactory(Protocol):
    """Makes the problem of one actor-learner, in its process."""

    def __call__(self, index: int) -> Problem:
        """That of the process with this index on its node."""


class Application:
    """One use of the DPSGD core. One of your own writes `initial`, `problem`, and perhaps `name`, `evaluate`, `best`
    and `config_type`; the rest has defaults. Nothing here may import torch until `initial` or `problems` is called.
    """

    name: str
    """In a word, for checkpoints and messages; the class's own where nothing else is said."""
    config_type: ClassVar[type] = Config
    """The dataclass of its configuration: the sections of `Config`, and its own."""
    best: ClassVar[str | None] = None
    """Which number of `evaluate`, or of its tracker's rows, makes a checkpoint the best, and is what ``tune`` improves:
    the higher the better; after a minus, the lower."""
    fields: Sequence[Field] = (
        Field("updates", "updates"),
        Field("updates/s", "speed/updates_per_s"),
        Field("exchanges", "exchanges"),
        Field("tau", "staleness/mean", "{:.2f}"),
        Field("overlap", "staleness/overlap_mean", "{:.2f}"),
        Field("master busy", "master/busy", "{:.0%}"),
    )
    """What the console shows."""
    curve: Field = Field("updates/s", "speed/updates_per_s")
    """What it draws."""
    fixed: ClassVar[Sequence[str]] = ()
    """Settings, by dotted name, that a resumed run keeps: others of them would make it another run."""
    summary: ClassVar[Mapping[str, str]] = {"updates": "updates"}
    """What ``--json`` says of a finished run beside what all have: name to key of a row."""
    earlier_modules: ClassVar[Sequence[str]] = ()
    """Names that its module has had: recordings of earlier versions have them."""
    overlaps: ClassVar[bool] = True
    """Whether its processes may go on during an exchange: its layout is `Layout.in_place`."""
    command: ClassVar[CommandWords] = CommandWords(
        limits="--updates or --minutes",
        options=(
            Option(
                flag="--updates",
                group="stop",
                field="stop.updates",
                type=int,
                metavar="N",
                help="updates over all nodes and processes",
            ),
        ),
    )
    """What its command line says."""
    pictures: ClassVar[PictureWords] = PictureWords(unit="updates")
    """What its curves and pages say."""
    preflight: ClassVar[PreflightWords] = PreflightWords()
    """What ``doctor`` says."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    # What an application of your own writes.

    def initial(self, config: Any) -> Vector:
        """v_0, float32 [dim]."""
        raise NotImplementedError

    def problem(self, config: Any, seed: int) -> Problem:
        """The problem of one actor-learner; made in its process.

        Args:
            config: The node's own (`at_node`).
            seed: Of what is random in it: another for each process, node and resume.
        """
        raise NotImplementedError

    def evaluate(self, config: Any, v: Vector) -> Mapping[str, Any]:
        """How good v is, by name: asked at the master now and then, and by `hsa2c.evaluate`. Nothing: nobody asks."""
        return {}

    # What it may write.

    def policy(self, config: Any, v: Vector) -> Any:
        """What `hsa2c.load` gives of a checkpoint: what v stands for, such as a function from observation to action."""
        return v

    def export(self, config: Any, v: Vector, path: Path) -> None:
        """Write what v stands for as a file that other programs run (``hsa2c export``); its ending says the format."""
        raise ConfigError(f"application {self.name}: has no format to export to")

    def suspect(self, config: Any) -> str:
        """What to look at where a run's processes end without a word, such as its environment; empty: nothing."""
        return ""

    def imports(self, config: Any) -> Sequence[str]:
        """Names of all code that evaluating imports: a stranger's settings may name anything."""
        return self.code(config)

    def card(self, config: Any, v: Vector, film: Path) -> Card:
        """V measured, for a model card (``hsa2c push``), and perhaps a film of it, MP4, in the file that is given."""
        raise ConfigError(f"application {self.name}: has no model card")

    def shown(self, config: Any) -> Sequence[Field]:
        """What the console shows of this run."""
        return self.fields

    def drawn(self, config: Any) -> Sequence[str]:
        """Keys of rows that ``plot`` draws of this run, the first one large: what is best, before all."""
        best = () if self.best is None else (self.best.removeprefix("-"),)
        return tuple(dict.fromkeys((*best, *(self.pictures.tags or (self.curve.key,)))))

    def code(self, config: Any) -> Sequence[str]:
        """Names of the user's code that this run needs (`hsa2c.names`)."""
        return ()

    def label(self, config: Any) -> str:
        """The first part of a run's name, where its user gives none."""
        return self.name

    def title(self, config: Any) -> str:
        """What runs, in one line."""
        nodes, p = config.cluster.nodes, config.cluster.processes
        return (
            f"{self.name}: {nodes} node{'s' if nodes > 1 else ''} x {p or 'p'} actor-learner{'s' if p != 1 else ''},"
            f" B = {config.dpsgd.local_updates}"
        )

    def limits(self, config: Any) -> dict[str, float]:
        """Where training ends by itself, wall-clock aside: key of a row to its limit."""
        updates = getattr(config.stop, "updates", None)
        return {} if updates is None else {"updates": updates}

    def identity(self, config: Any) -> dict[str, str]:
        """What a checkpoint and a run must agree on."""
        return {"application": self.name}

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
        return len(self.initial(config))

    def averages(self, config: Any) -> int:
        """So many of the last numbers of v are running averages: deltas are not compared by them."""
        return 0

    def layout(self, config: Any) -> Layout:
        """How a node holds u: a copy of v that the configured optimiser changes, where an application has no other."""
        from hsa2c.node.layout import dense_layout

        return dense_layout(self.dim(config), config.optimiser)

    def problems(self, config: Any, node: int, t: int) -> ProblemFactory:
        """For the processes of a node, at global step t; imports what they need, before they are forked.

        Here, in `work_per_update` and in `describe`, `config` is the node's own (`at_node`).
        """

        def make(index: int) -> Problem:
            import numpy as np

            seed = np.random.SeedSequence([config.seed, node, index, t]).generate_state(1)
            return self.problem(config, int(seed[0]))

        return make

    def tracker(self, config: Any, counters: Mapping[str, Any]) -> Tracker:
        """A tracker that goes on from `counters`; they are empty at the start of a run."""
        return Tracker(
            limit=getattr(config.stop, "updates", None),
            evaluate=partial(self.evaluate, config) if _writes(self, "evaluate") else None,
            best=self.best,
            counters=counters,
        )

    def evaluation(self, config: Any) -> Evaluation | None:
        """How v is evaluated every so often in a process of its own; None: it is not."""
        return None

    def work_per_update(self, config: Any) -> float:
        """Units of work (`Tracker.work`) behind an update of u, on the average."""
        return 1.0

    def describe(self, config: Any) -> dict[str, Any]:
        """What a node should say of itself once it is ready."""
        return {}

    def chosen(self, config: Any, said: Mapping[str, Any]) -> Any:
        """`config` with what a node has chosen for itself, as `describe` said of it, so that others choose the same."""
        return config

    def build_config(self, values: Mapping[str, Any]) -> Any:
        """Plain values into this application's configuration."""
        return build(self.config_type, values)


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


def tracker_of(app: Application, config: Any, counters: Mapping[str, Any]) -> Tracker:
    """An application's tracker.

    Raises:
        ConfigError: It is none.
    """
    tracker: Any = app.tracker(config, counters)
    if not isinstance(tracker, Tracker):
        raise ConfigError(f"application {app.name}: its tracker is a {type(tracker).__name__}, must be a hsa2c.Tracker")
    return tracker


def load(name: str) -> Application:
    """The application that a name stands for: for a command, the launcher, a rank, and what forks the nodes.

    Args:
        name: As for `locate`; or of an application or its class, ``module:name`` (`hsa2c.names`).

    Raises:
        ConfigError: There is no such module, no application in it, or one that lacks what it must have.
    """
    found = names.find(name) if ":" in name else importlib.import_module(locate(name)).APPLICATION
    return _checked(found, name)


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
    module = names.module_of(name, "application")
    if hasattr(module, "APPLICATION"):
        return name
    inside = f"{name}.application"
    if hasattr(module, "__path__") and importlib.util.find_spec(inside) is not None:
        return locate(inside)
    raise ConfigError(f"application {name}: the module has no APPLICATION")


def named(app: Any) -> tuple[str, Application]:
    """An application's name, for `load`, and itself.

    Args:
        app: The name of its module, itself, or its class.
    """
    if isinstance(app, str):
        return (app if ":" in app else locate(app)), load(app)
    found = _checked(app, getattr(app, "__name__", type(app).__name__))
    return names.give(app, "application"), found


def _checked(found: Any, name: str) -> Application:
    app = found() if isinstance(found, type) else found
    if not isinstance(app, Application):
        raise ConfigError(f"application {name}: is a {type(app).__name__}, must be a hsa2c.Application")
    for own, others in (("initial", ()), ("problem", ("problems",))):
        if not any(_writes(app, one) for one in (own, *others)):
            raise ConfigError(f"application {name}: {type(app).__name__} has no {own}, must have one")
    if app.best is not None and not _writes(app, "evaluate") and not _writes(app, "tracker"):
        raise ConfigError(f"application {name}: best = {app.best!r}: needs evaluate, which gives it")
    return app


def _writes(app: Application, member: str) -> bool:
    return getattr(type(app), member) is not getattr(Application, member)
