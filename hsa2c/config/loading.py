"""Typed, frozen configuration: YAML and command line into dataclasses, and back.

A configuration is a tree of frozen keyword-only dataclasses, validated by pydantic: unknown keys, wrong types and
values out of range are one-line `ConfigError`s. This module holds the sections every application of the DPSGD core
shares; an application adds its own and composes them.

Precedence, lowest first: the defaults in the dataclasses, the YAML file (``--config``), the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import json
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from hsa2c.errors import ConfigError

T = TypeVar("T")


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
        found = flatten("", values) if isinstance(error, TypeError) else {}  # else a mapping holds itself
        what = next((f"{name[1:]} = {value}" for name, value in found.items() if not _is_plain(value)), error)
        raise ConfigError(
            f"configuration: holds a value that is neither number, text nor list: {_flat(what)}"
        ) from None
    try:
        return TypeAdapter(config_type).validate_json(text)
    except ValidationError as error:
        raise ConfigError(_flat(_one_line(config_type, error))) from None


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, list, tuple, Mapping, type(None)))


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
    return dump(to_dict(config))


def dump(values: Mapping[str, Any]) -> str:
    """A tree of plain values as the YAML text that `read_yaml` turns into an equal one."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)


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


def find_config(name: str, package: str | None = None) -> Path:
    """A YAML file, or the shipped one of this name (``paper/hsa2c``).

    Args:
        name: What was typed.
        package: Where shipped ones are; None: there are none.

    Raises:
        ConfigError: There is no such file.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's fails where there is no home
    if package is None:
        if _is_file(path):
            return path
        raise ConfigError(f"--config {name}: no such file")
    folder = Path(str(importlib.resources.files(package))).resolve()
    shipped = folder / f"{name.removesuffix('.yaml')}.yaml"
    for candidate in (path, shipped):
        if _is_file(candidate):
            return candidate
    known = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    raise ConfigError(f"--config {name}: no such file; shipped are {', '.join(known)}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


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
    """``nested("dpsgd.momentum", 0.9)`` is ``{"dpsgd": {"momentum": 0.9}}``."""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return cast("dict[str, Any]", value)


def tree(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by dotted name, as a command line gives them, as a tree; the later wins."""
    values: dict[str, Any] = {}
    for dotted, value in fields.items():
        values = merge(values, nested(dotted, value))
    return values


def at(values: Mapping[str, Any], dotted: str) -> Any:
    """The setting of this dotted name in a tree; None where there is none."""
    here: Any = values
    for key in dotted.split("."):
        here = here.get(key) if isinstance(here, Mapping) else None
    return here


def flatten(dotted: str, value: Any) -> dict[str, Any]:
    """The fields below a setting by dotted name, as ``{"dpsgd.momentum": 0.9}``; of a value, itself."""
    if not isinstance(value, Mapping) or not value:
        return {dotted: value}
    fields: dict[str, Any] = {}
    for key, item in value.items():
        fields |= flatten(f"{dotted}.{key}", item)
    return fields


def parse_assignment(text: str, example: str = "seed=2") -> tuple[str, Any]:
    """``dpsgd.momentum=0.9`` (an option ``--set``) as the field's dotted name and its value, which is read as YAML.

    Args:
        text: What was typed.
        example: A right one, for who typed a wrong one.

    Raises:
        ConfigError: There is no ``=``, or nothing before it, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set {_flat(text)}: must be section.field=value, for example {example}")
    try:
        return key, _load(value)
    except _NOT_YAML as error:
        raise ConfigError(f"--set {_flat(text)}: the value is not YAML: {_flat(error)}") from None


def assignments(texts: Sequence[str], example: str = "seed=2") -> dict[str, Any]:
    """``--set`` options as fields by dotted name; ``stop={minutes: 5}`` is the same as ``stop.minutes=5``.

    Args:
        texts: What was typed.
        example: A right one, for who typed a wrong one.
    """
    fields: dict[str, Any] = {}
    for text in texts:
        fields |= flatten(*parse_assignment(text, example))
    return fields


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
