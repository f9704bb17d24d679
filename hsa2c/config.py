"""Typed, frozen configuration: YAML and command line into dataclasses, and back.

A configuration is a tree of frozen keyword-only dataclasses, validated by pydantic: unknown keys, wrong types and
values out of range are one-line `ConfigError`s. This module holds the sections every application of the DPSGD core
shares; an application (`hsa2c.atari`) adds its own and composes them.

Precedence, lowest first: the defaults in the dataclasses, the YAML file (``--config``), the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from hsa2c.errors import ConfigError

T = TypeVar("T")

#: Every section is declared with these: frozen, keyword-only, no unknown keys, no silent conversion of types.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

#: A path as text; ``~`` is the user's home.
PathText = Annotated[str, Field(min_length=1), AfterValidator(os.path.expanduser)]


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
    """File of the hosts to run on, one a line, each perhaps with ``slots=N`` (1): its nodes before the next host gets
    one, and with ``p=K``: their processes. The master runs on the first. allocation: those of the Slurm or PBS job that
    this is, and so if nothing is given there and it has other hosts than this one. None: this machine."""

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
    keep what it loses to exchanges at `exchange_share` (`hsa2c.dpsgd.pace`)."""

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
    pull before its next global step: with M the number of nodes all work at the same v (Adamski et al. 2018)."""

    deltas_per_step: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Deltas the master sums before one global step. M. None: the number of nodes, as in section 4.2.1."""

    global_rate: Annotated[float, Field(gt=0, le=100)] | None = None
    """Global learning rate. rho. None: such that rho * M / (1 - momentum) = global_factor."""

    global_factor: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Long-run factor on the mean delta, rho * M / (1 - momentum), kept whatever the number of nodes; used where
    global_rate is None."""

    max_delay: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Delay of a delta, in global steps, from which on it counts for less: max_delay / delay. D' of Assumption 5. None:
    10 times the number of nodes for each delta of a step, rounded up, which only a node that was stopped or cut off
    exceeds."""

    delta_dtype: Annotated[Literal["float32", "bfloat16", "int8"], BeforeValidator(_two_bytes)] = "float32"
    """How a delta goes to the master, and what is new in v to the nodes: in 4, 2 or 1 bytes a number. What rounding
    takes from one delta is added to the node's next (error feedback: Seide et al. 2014, Karimireddy et al. 2019); see
    `hsa2c.dpsgd.codec` and `hsa2c.dpsgd.serving`. float16, which 0.1 had as well, is bfloat16 now."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum of the global step. mu. Algorithm 1 is 0; the paper's HSA2C used 0.5."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimiserConfig:
    """Line 6 of Algorithm 2: how a gradient changes u. State is shared by a node's processes, kept across pulls."""

    name: Literal["sgd", "rmsprop", "adam"] = "adam"
    """sgd (the paper's Algorithm 2), rmsprop (Mnih et al. 2016) or adam (Adamski et al. 2018)."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-4
    """Local learning rate at the start. eta."""

    half_after: Annotated[float, Field(gt=0, le=1e15)] | None = 1.5e6
    """Work of a node (agent steps in HSA2C) after which the local learning rate has fallen to a half: it is
    learning_rate / (1 + work / half_after), whose sum diverges while that of its squares does not (Robbins and Monro
    1951). Of a node, not of all: v moves by the mean of the nodes' deltas. None: it does not fall."""

    anneal: bool = False
    """Fall, also, linearly to 0 at the run's limit (`stop.agent_steps` or `stop.minutes`, whichever is nearer)."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Adam: decay of the mean of gradients, its momentum (Kingma and Ba 2015, 0.9; Adamski et al. 2018, 0.8). 0: none,
    for processes that share u without a lock are a momentum of their own (Mitliagkas et al. 2016; docs/performance.md).
    """

    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Adam: decay of the mean of squared gradients."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """RMSProp: decay of the mean of squared gradients (Mnih et al. 2016, 0.99)."""

    epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Adam and RMSProp: added to the root of the mean square."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StopConfig:
    """When training ends by itself: whichever comes first; None never."""

    agent_steps: Annotated[int, Field(ge=1)] | None = None
    """Actions over all nodes, counted from the start of the run, resumes included."""

    minutes: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Wall-clock of training, start-up excluded, resumes included."""

    score: float | None = None
    """Mean score of the last 100 training games."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OutputConfig:
    """What a run writes, and where."""

    run_dir: PathText = "runs"
    """Folder that holds runs."""

    name: Name | None = None
    """Name of this run in it. None: game, date and time."""

    log_every_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """Seconds between two rows of metrics.jsonl and TensorBoard."""

    checkpoint_every_s: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds between two checkpoints: the most work that a kill -9 of everything can lose."""

    keep_checkpoints: Annotated[int, Field(ge=1, le=1000)] = 3
    """Newest checkpoints kept, beside the best one."""

    record: bool = False
    """Whether the master writes down each delta that comes, and in which order, for ``--replay``: in float32 4 bytes
    for each number of v. Not with several masters."""

    record_gib: Annotated[float, Field(gt=0, le=1e6)] = 8.0
    """GiB that a session's recording may have; then it ends, and training goes on."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's numbers: PyYAML reads ``1e-3``, which has no dot, as text. And no setting twice: one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in the class above; refuses a key that is there twice."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return cast("dict[Any, Any]", super().construct_mapping(node, deep))


#: What PyYAML raises: also ValueError for what looks like a date, and RecursionError for very deep nesting.
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


class _Dumper(yaml.SafeDumper):
    """Puts quotation marks around text, such as a run's name, that `_Loader` would take for a number."""


for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def build(config_type: type[T], values: Mapping[str, Any]) -> T:
    """Validate a tree of plain values.

    Args:
        config_type: The dataclass to build.
        values: What a YAML file or the command line gave; missing keys take their defaults.

    Raises:
        ConfigError: One line that names the first offending field, its value and the rule.
    """
    try:
        # As JSON: there strict means no "2" for 2 and no 2.0 for 2, but mappings still make dataclasses.
        text = json.dumps(dict(values), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        fields = list(flatten("configuration", values).items())
        wrong = next((item for item in fields if isinstance(item[1], str) and not is_text(item[1])), fields[0])
        name = _flat(wrong[0].removeprefix("configuration."))
        raise ConfigError(f"{name} = {wrong[1]!a}: must be UTF-8 text") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"configuration: holds a value that is neither number, text nor list: {_flat(error)}"
        ) from None
    try:
        return TypeAdapter(config_type).validate_json(text)
    except ValidationError as error:
        raise ConfigError(_flat(_one_line(config_type, error))) from None


def is_text(value: str) -> bool:
    """Whether UTF-8 has it; bytes of a command line that are none come as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain values, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def to_yaml(config: Any) -> str:
    """A configuration as the YAML text that `read_yaml` and `build` turn into an equal one."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: The file is missing, unreadable, not YAML, or not a mapping.
    """
    try:
        loaded = _load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except _NOT_YAML as error:
        raise ConfigError(f"{path}: not YAML: {_flat(error)}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: holds {type(loaded).__name__}, not a mapping of settings")
    return cast("dict[str, Any]", loaded)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of two sources as one, key by key; `above` wins."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def nested(dotted: str, value: Any) -> dict[str, Any]:
    """``nested("agent.gamma", 0.9)`` is ``{"agent": {"gamma": 0.9}}``."""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return cast("dict[str, Any]", value)


def flatten(dotted: str, value: Any) -> dict[str, Any]:
    """The fields below a setting by dotted name, as ``{"agent.gamma": 0.9}``; of a value, itself."""
    if not isinstance(value, Mapping) or not value:
        return {dotted: value}
    fields: dict[str, Any] = {}
    for key, item in value.items():
        fields |= flatten(f"{dotted}.{key}", item)
    return fields


def parse_assignment(text: str) -> tuple[str, Any]:
    """``agent.gamma=0.9`` (an option ``--set``) as the field's dotted name and its value, which is read as YAML.

    Raises:
        ConfigError: There is no ``=``, or nothing before it, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {_flat(text)}: must be section.field=value, for example agent.discount=0.99")
    try:
        return key, _load(value)
    except _NOT_YAML as error:
        raise ConfigError(f"--set {_flat(text)}: the value is not YAML: {_flat(error)}") from None


def field_at(config_type: type, dotted: tuple[str, ...]) -> list[str]:
    """Names of the fields beside the last one of `dotted`, for suggestions."""
    here: Any = config_type
    for key in dotted[:-1]:
        fields = {f.name: f.type for f in dataclasses.fields(here)}
        here = _resolve(here, fields.get(key))
        if here is None:
            return []
    return [f.name for f in dataclasses.fields(here)]


def _resolve(owner: type, annotation: Any) -> Any:
    """The dataclass that a field's annotation (possibly a string) stands for, or None."""
    if isinstance(annotation, str):
        import sys

        annotation = getattr(sys.modules[owner.__module__], annotation, None)
    return annotation if dataclasses.is_dataclass(annotation) else None


def _one_line(config_type: type, error: ValidationError) -> str:
    """Pydantic's first finding as ``section.field = value: rule``."""
    first, *others = error.errors(include_url=False)
    location = tuple(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return f"configuration: {_flat(first['msg'])}"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown(config_type, (*_fields(location[:-1]), location[-1]))
    where = ".".join(_fields(location)) or "configuration"
    message = re.sub(r"^\w+ should ", "", first["msg"]).replace("Value error, ", "be ", 1)
    if first["type"] == "string_pattern_mismatch":
        message = "be letters, digits, '.', '_' and '-', at most 100, the first a letter or digit"
    if first["type"].startswith("int_") and others:  # a number or a word, and it is neither
        message += " or " + re.sub(r"^\w+ should be ", "", others[0]["msg"])
    return f"{where} = {reprlib.repr(first.get('input'))}: must {_flat(message)}"


def _unknown(config_type: type, dotted: tuple[str, ...]) -> str:
    """That there is no such setting, and which there are."""
    beside = field_at(config_type, dotted)
    near = difflib.get_close_matches(dotted[-1], beside, n=3, cutoff=0.5)
    key = dotted[-1] if dotted[-1].isprintable() and dotted[-1] else repr(dotted[-1])
    where = ".".join((*dotted[:-1], key))
    return f"{where}: no such setting; {'did you mean' if near else 'known are'} {', '.join(near or beside)}?"


_BRANCHES = frozenset({"int", "float", "str", "bool", "none", "constrained-int"})


def _fields(location: tuple[str, ...]) -> tuple[str, ...]:
    """Pydantic's location without the parts that name a branch of a union rather than a field."""
    return tuple(part for part in location if "[" not in part and part not in _BRANCHES)


def _flat(message: object) -> str:
    """Somebody else's words as one line."""
    return " ".join(str(message).split())
