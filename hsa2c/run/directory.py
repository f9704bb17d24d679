"""Run directories: made for a new run, opened again for a resumed one; never by two at a time."""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.resources
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import yaml

from hsa2c.application import Application, RunConfig
from hsa2c.cluster import allocation, hosts
from hsa2c.cluster.allocation import ALLOCATION
from hsa2c.cluster.machine import about, share_of_cores
from hsa2c.cluster.world import World
from hsa2c.config.loading import flatten, merge, nested, parse_assignment, read_yaml, to_dict, to_yaml
from hsa2c.dpsgd.steps import constant_factor_rho
from hsa2c.errors import ConfigError, FinishedError
from hsa2c.observe.jsonlines import Row
from hsa2c.observe.runlog import JOURNAL, METRICS, Journal, number, read_rows
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import earlier

CONFIG = "config.yaml"
ABOUT = "about.yaml"

_MOST_RANKS = 100_000  # of any kind
_DELAYS = 10  # times the usual delay may a delta be late before it counts for less

#: Settings that a resumed run keeps: others of them would make it another run.
_FIXED = ("seed", "output.run_dir", "output.name", "optimiser.name")


@dataclass(kw_only=True)
class Run:
    """A run that is about to start, or to go on."""

    config: Any
    directory: Path
    checkpoint: Path | None = None
    session: int = 1
    remarks: Sequence[str] = ()
    again: bool = False
    """Whether the directory may be there, though there is no checkpoint."""
    fresh: bool = False
    """Whether `open` has made the directory."""
    _lock: IO[str] | None = None

    def open(self) -> Self:
        """Make the directory, lock it, and write down what runs.

        Raises:
            ConfigError: The directory cannot be written, or another process runs there.
        """
        try:
            self._open()
        except BaseException:
            self._give_up()
            raise
        return self

    @property
    def lock(self) -> int | None:
        """File descriptor of the lock, once open."""
        return self._lock.fileno() if self._lock else None

    def close(self) -> None:
        """Let others run in the directory; a second call does nothing."""
        if self._lock:
            self._lock.close()

    def _give_up(self) -> None:
        """Leave nothing of a start that came to nothing."""
        self.close()
        if self.fresh:
            withdraw(self.directory)

    def _open(self) -> None:
        try:
            self.fresh = _make(self.directory, may_exist=self.again or self.checkpoint is not None)
            self._lock = (self.directory / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            changed = earlier.changes(self.directory / CONFIG, self.config)
            _replace(self.directory / CONFIG, to_yaml(self.config))
            session = "" if self.session == 1 else f"-{self.session}"
            _replace(self.directory / f"{Path(ABOUT).stem}{session}.yaml", yaml.safe_dump(about(), sort_keys=False))
            with Journal(self.directory, session=self.session) as journal:
                if not self.checkpoint:
                    journal.event("start", "starting")
                else:
                    journal.event("resume", f"resuming from {self.checkpoint.name}", checkpoint=str(self.checkpoint))
                if changed:
                    journal.event("settings", f"other settings than before: {changed}")
                for remark in self.remarks:
                    journal.event("warning", remark)
        except BlockingIOError:
            self.fresh = False  # it is theirs
            raise ConfigError(f"{self.directory}: another process is training in it") from None
        except FileExistsError as error:
            raise ConfigError(_exists(Path(error.filename or self.directory))) from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{self.directory}: cannot be written: {why}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._give_up()
        self.close()


def prepare(
    app: Application, given: Mapping[str, Any], config_file: str | None, world: World, *, again: bool = False
) -> Run:
    """A new run; nothing is written yet.

    Args:
        app: The application.
        given: Fields set on the command line, by dotted name.
        config_file: YAML file or name of a shipped one.
        world: The MPI world of this process, if it was started in one.
        again: Go on with the run of this name if it has a checkpoint, and begin anew in its directory if it has none.

    Raises:
        ConfigError: Something in the configuration is wrong, or the run's directory exists.
        FinishedError: With `again`: the run has reached its limit.
    """
    allocation.refuse_lone_tasks()
    values: dict[str, Any] = {} if config_file is None else read_yaml(find_config(config_file))
    for dotted, value in given.items():
        values = merge(values, nested(dotted, value))
    values = _fit_world(values, world) if world.started_by_mpi else _fit_allocation(values)
    values = _fit_hosts(values)
    config = _resolve(app, app.build_config(values))
    directory = Path(config.output.run_dir) / (config.output.name or _fresh_name(app, config))
    remarks: list[str] = []
    if again and (_is_there(directory / CONFIG) or checkpoints.steps(directory / checkpoints.FOLDER)):
        if (run := _go_on(app, directory, given, config, world)) is not None:
            return run
        remarks.append("no checkpoint was written before: begins anew, and its curves at 0")
    config = dataclasses.replace(config, output=dataclasses.replace(config.output, name=directory.name))
    # The other ranks of a world may come when rank 0 has made it already.
    if world.rank == 0 and not again and _is_there(directory):
        raise ConfigError(_exists(directory))
    session = _last_session(directory) + 1 if again and _is_there(directory / JOURNAL) else 1
    return Run(config=config, directory=directory, session=session, again=again, remarks=remarks)


def _go_on(app: Application, directory: Path, given: Mapping[str, Any], config: Any, world: World) -> Run | None:
    """The run in a directory, resumed; None where no session of it came to a checkpoint, so that it may begin anew.

    Raises:
        ConfigError: It is of something else, or has lost its checkpoints.
        FinishedError: It has reached its limit.
    """
    if not _is_there(directory / CONFIG):
        raise ConfigError(f"{directory}: holds checkpoints, but no {CONFIG}: put it back; --name starts another")
    saved = app.build_config(read_yaml(directory / CONFIG))
    told = to_dict(saved)
    for dotted, value in given.items():
        told = merge(told, nested(dotted, value))
    earlier.check_same(app, directory, saved, app.build_config(told))
    if checkpoints.steps(directory / checkpoints.FOLDER):
        return resume(app, directory, given, None, world, again=True)
    earlier.check_not_lost(directory)
    earlier.check_same(app, directory, saved, config)
    return None


def resume(
    app: Application,
    directory: Path,
    given: Mapping[str, Any],
    config_file: str | None,
    world: World,
    *,
    again: bool = False,
) -> Run:
    """A run that goes on from its newest good checkpoint; nothing is written yet.

    Raises:
        ConfigError: There is no run, no good checkpoint, nothing left to do, or a setting that cannot change.
        FinishedError: With `again`, instead: nothing is left to do.
    """
    allocation.refuse_lone_tasks()
    if config_file is not None:
        raise ConfigError(f"--config {config_file}: a resumed run keeps its own configuration")
    if not _is_there(directory / CONFIG):
        raise ConfigError(f"--resume {directory}: not a run directory (it has no {CONFIG})")
    saved = to_dict(app.build_config(read_yaml(directory / CONFIG)))
    if world.started_by_mpi:
        spares, masters = (given.get(name, _at(saved, name)) for name in ("cluster.spares", "cluster.masters"))
        nodes = _nodes_of(world, given.get("cluster.nodes"), spares, masters)
        given = {"cluster.hosts": None, "cluster.nodes": nodes, **given}
        _refuse_hosts(given["cluster.hosts"])
    elif "cluster.hosts" not in given:
        given = _fit_allocation_again(saved, given)
    elif given["cluster.hosts"] is not None:
        if not _at(saved, "cluster.hosts"):  # p was one machine's
            given = {"cluster.processes": None, **given}
        if "cluster.nodes" not in given:
            given = {"cluster.nodes": hosts.slots(allocation.hosts_of(str(given["cluster.hosts"]))), **given}
    values = _follow_nodes(saved, given)
    for dotted, value in given.items():
        values = merge(values, nested(dotted, value))
    config = _resolve(app, app.build_config(values))
    for dotted in (*_FIXED, *app.fixed):
        if (new := _at(to_dict(config), dotted)) != (old := _at(saved, dotted)):
            raise ConfigError(f"{dotted} = {new!r}: cannot change in a resumed run, which has {old!r}")
    checkpoint, path, skipped = checkpoints.load_newest(directory / "checkpoints")
    checkpoints.check_identity(checkpoint, app.identity(config), source=path)
    if reached := _reached(app, config, checkpoint.counters):
        if again:
            raise FinishedError(directory, reached)
        raise ConfigError(f"--resume {directory}: nothing left to do: {reached}; raise the limit")
    return Run(
        config=config,
        directory=directory,
        checkpoint=path,
        session=_last_session(directory) + 1,
        remarks=skipped,
    )


def withdraw(directory: Path) -> bool:
    """Remove the directory of a run in which nothing was trained; gives back whether it is gone."""
    if has_checkpoint(directory) or _rows(directory / METRICS):
        return False
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def _reached(app: Application, config: Any, counters: Mapping[str, Any]) -> str | None:
    """The limit that a checkpoint's counters are at, in words; None if there is something left to do."""
    minutes = config.stop.minutes
    if minutes is not None and counters.get("elapsed_s", 0.0) >= 60 * minutes:
        return f"{minutes:g} min of training"
    return app.tracker(config, counters).reached()


def with_nodes(app: Application, config: Any, nodes: int) -> Any:
    """A run's configuration for another number of nodes: what followed it by rule follows it again."""
    values = _follow_nodes(to_dict(config), {"cluster.nodes": nodes})
    return _resolve(app, app.build_config(merge(values, nested("cluster.nodes", nodes))))


def find_config(name: str) -> Path:
    """A YAML file, or the shipped one of this name (``paper/hsa2c``)."""
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's fails where there is no home
    folder = Path(str(importlib.resources.files("configs")))
    shipped = folder / f"{name.removesuffix('.yaml')}.yaml"
    for candidate in (path, shipped):
        if _is_there(candidate) and candidate.is_file():
            return candidate
    known = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    raise ConfigError(f"--config {name}: no such file; shipped are {', '.join(known)}")


def assignments(texts: Sequence[str], example: str) -> dict[str, Any]:
    """``--set`` options as fields by dotted name; ``stop={minutes: 5}`` is the same as ``stop.minutes=5``.

    Args:
        texts: What was typed.
        example: A right one, for who typed a wrong one.
    """
    fields: dict[str, Any] = {}
    for text in texts:
        fields |= flatten(*parse_assignment(text, example))
    return fields


def summary(app: Application, directory: Path, code: int) -> dict[str, Any]:
    """What a run came to: its last row and why it ended."""
    rows = [row for row in _rows(directory / METRICS) if "elapsed_s" in row]
    stops = [event for event in _rows(directory / JOURNAL) if event.get("kind") == "stop"]
    last = rows[-1] if rows else {}
    stop = stops[-1] if stops else {}
    return {
        "run": str(directory),
        "exit_code": code,
        "reason": stop.get("message") if _is_there(directory) else "stopped before training began",
        "checkpoint": stop.get("checkpoint"),
        **{key: last.get(key) for key in ("elapsed_s", "exchanges", "global_steps")},
        **{name: last.get(key) for name, key in app.summary.items()},
    }


def _last_session(directory: Path) -> int:
    """From the journal, not the checkpoint: the last session may have been killed before it wrote one."""
    sessions = [number(row.get("session")) for name in (JOURNAL, METRICS) for row in _rows(directory / name)]
    return max((int(session) for session in sessions if session is not None), default=1)


def _rows(path: Path) -> list[Row]:
    """None where there is no such file: a job may fail before it writes a row."""
    return read_rows(path) if path.exists() else []


def _resolve(app: Application, config: Any) -> Any:
    """Fill in what was left to the machine and to the rules, and check what belongs together."""
    run: RunConfig = config
    nodes = run.cluster.nodes
    M = run.dpsgd.deltas_per_step or nodes
    listed = run.cluster.hosts
    own: list[int | None] = []
    if listed is not None:
        listed = listed if listed == ALLOCATION else str(Path(listed).absolute())
        own = _own_processes(listed, run)
    if run.cluster.spares and nodes == 1 and listed is None:
        raise ConfigError(f"cluster.spares = {run.cluster.spares}: one node alone has no MPI, must be 0 (or --nodes 2)")
    if run.cluster.masters > 1 and nodes == 1:
        raise ConfigError(f"cluster.masters = {run.cluster.masters}: one node needs no more than 1 (or --nodes 2)")
    if run.output.record and run.cluster.masters > 1:
        raise ConfigError(
            f"output.record = True: {run.cluster.masters} masters are not recorded, must be 1 (--masters)"
        )
    if run.optimiser.anneal and not app.limits(config) and run.stop.minutes is None:
        raise ConfigError(f"optimiser.anneal = True: needs a limit to fall to 0 at, {app.command.limits}")
    p = run.cluster.processes or (share_of_cores(nodes) if listed is None else None)  # each host has its own cores
    exchange = run.dpsgd.exchange
    if exchange == "auto":
        exchange = "overlap" if app.overlaps and nodes * (p or own[0] or 2) > 1 else "paper"
    elif exchange == "overlap" and not app.overlaps:
        raise ConfigError(f"dpsgd.exchange = 'overlap': {app.name} cannot, must be auto or paper")
    config = dataclasses.replace(
        config,
        cluster=dataclasses.replace(run.cluster, processes=p, hosts=listed),
        dpsgd=dataclasses.replace(
            run.dpsgd,
            deltas_per_step=M,
            exchange=exchange,
            max_delay=run.dpsgd.max_delay or _usual_delay(nodes, M),
        ),
    )
    config = app.resolve(config)
    dpsgd = config.dpsgd
    rho = dpsgd.global_rate or constant_factor_rho(M, dpsgd.momentum, dpsgd.global_factor)
    app.identity(config)  # loads data, for example: better now than in forty processes
    return dataclasses.replace(config, dpsgd=dataclasses.replace(dpsgd, global_rate=rho))


def _own_processes(listed: str, run: RunConfig) -> list[int | None]:
    """P of each node, where a file of hosts gives it; None where it does not."""
    there, p = allocation.hosts_of(listed), run.cluster.processes
    with_p = [host.name for host in there if host.processes]
    if p is not None and with_p:
        raise ConfigError(
            f"cluster.processes = {p}: {listed} gives {with_p[0]} a p of its own: must be one or the other (--p, or p=)"
        )
    return hosts.processes(there, run.cluster.nodes)


def _usual_delay(nodes: int, M: int) -> int:
    return _DELAYS * -(-nodes // M)


def _follow_nodes(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """With another number of nodes, what followed it by rule follows it again."""
    values = dict(saved)
    before, dpsgd = _at(saved, "cluster.nodes"), dict(saved.get("dpsgd", {}))
    followed = {"dpsgd.deltas_per_step", "dpsgd.momentum", "dpsgd.global_factor"}
    if given.get("cluster.nodes", before) == before and not followed & set(given):
        return values
    M, mu = dpsgd.get("deltas_per_step"), dpsgd.get("momentum", 0.0)
    if M and dpsgd.get("global_rate") == constant_factor_rho(M, mu, dpsgd.get("global_factor", 1.0)):
        dpsgd["global_rate"] = None
    if M and dpsgd.get("max_delay") == _usual_delay(before, M):
        dpsgd["max_delay"] = None
    if before == M:
        dpsgd["deltas_per_step"] = None
    if given.get("cluster.nodes", before) != before and not _at(saved, "cluster.hosts"):
        values["cluster"] = {**saved.get("cluster", {}), "processes": None}
    return {**values, "dpsgd": dpsgd}


def _fit_world(values: dict[str, Any], world: World) -> dict[str, Any]:
    """Under mpiexec or srun the nodes are the ranks that are there, less the masters'."""
    _refuse_hosts(_at(values, "cluster.hosts"))
    wanted, spares, masters = (_at(values, f"cluster.{name}") for name in ("nodes", "spares", "masters"))
    nodes = _nodes_of(world, wanted, spares, masters)
    return merge(values, nested("cluster.nodes", nodes))


def _refuse_hosts(listed: Any) -> None:
    if listed is not None:
        raise ConfigError(f"--hosts {listed}: this world is there already; give its file to mpiexec")


def _fit_hosts(values: dict[str, Any]) -> dict[str, Any]:
    """A file of hosts says how many nodes there are, if nothing else does."""
    listed = _at(values, "cluster.hosts")
    if not isinstance(listed, str) or not listed or _at(values, "cluster.nodes") is not None:
        return values
    return merge(values, nested("cluster.nodes", hosts.slots(allocation.hosts_of(listed))))


def _fit_allocation(values: dict[str, Any]) -> dict[str, Any]:
    """In an allocation, if nothing was said of hosts, its hosts are the run's; this one alone is one machine."""
    cluster = values.get("cluster") or {}
    if not isinstance(cluster, Mapping) or "hosts" in cluster or (there := allocation.find()) is None:
        return values
    default = {"nodes": len(there.hosts), "spares": 0, "masters": 1} | {
        k: v for k, v in cluster.items() if v is not None
    }
    counts = [default[name] for name in ("nodes", "spares", "masters")]
    if not all(isinstance(count, int) and 0 <= count <= _MOST_RANKS for count in counts):
        return values  # which is told of when the configuration is built
    nodes, spares, masters = counts
    needed = allocation.is_needed(there, nodes + spares, masters)
    return merge(values, {"cluster": {"hosts": ALLOCATION if needed else None, "nodes": nodes}})


def _fit_allocation_again(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A resumed run takes the hosts of the allocation that it finds itself in, unless it has a file of hosts."""
    before = _at(saved, "cluster.hosts")
    if before not in (None, ALLOCATION):
        return dict(given)
    names = ("cluster.nodes", "cluster.spares", "cluster.masters")
    counts = {name: given.get(name, _at(saved, name)) for name in names}
    fitted = _fit_allocation({"cluster": {name.partition(".")[2]: count for name, count in counts.items()}})
    now = _at(fitted, "cluster.hosts")
    return dict(given) if now == before else {"cluster.processes": None, "cluster.hosts": now, **given}


def _nodes_of(world: World, wanted: Any, spares: Any, masters: Any) -> int:
    spares = spares if isinstance(spares, int) else 0
    masters = masters if isinstance(masters, int) else 1
    there: int = max(1, world.size - masters - spares)
    if wanted is not None and wanted != there:
        others = f", {spares} spare" if spares else ""
        who = "one is the master" if masters == 1 else f"{masters} are masters"
        raise ConfigError(f"--nodes {wanted}: this world has {world.size} ranks, {who}{others}: must be {there}")
    return there


def _at(values: Mapping[str, Any], dotted: str) -> Any:
    here: Any = values
    for key in dotted.split("."):
        here = here.get(key) if isinstance(here, Mapping) else None
    return here


def _fresh_name(app: Application, config: Any) -> str:
    stem = f"{app.label(config)}-{time.strftime('%Y%m%d-%H%M%S')}"
    name, number = stem, 2
    while _is_there(Path(config.output.run_dir) / name):
        name, number = f"{stem}-{number}", number + 1
    return name


def has_checkpoint(directory: Path) -> bool:
    """Whether there is something to go on from, or to evaluate."""
    return _is_there(directory / CONFIG) and any((directory / "checkpoints").glob("step-*.safetensors"))


def _make(directory: Path, *, may_exist: bool) -> bool:
    """Whether this has made it; it may have been there."""
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        if not (may_exist and directory.is_dir()):  # a file, or a link to nowhere
            raise
        return False
    return True


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


def _exists(directory: Path) -> str:
    if directory.is_symlink() and not _is_there(directory):
        return f"{directory}: is a link to {directory.readlink()}, which does not exist; --name starts another"
    if not directory.is_dir():
        return f"{directory}: is not a folder; --name starts another run"
    return f"{directory}: exists; --resume {directory} goes on with it, --name starts another"


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
