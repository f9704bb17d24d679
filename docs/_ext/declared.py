"""Settings as they are documented where they are declared: the sources are read, and nothing of them is imported."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

#: The class of an application's whole configuration, and the file that declares it.
CONFIGURATIONS = {
    "AtariConfig": "agents/application.py",
    "GymConfig": "agents/gym/settings.py",
    "LDAConfig": "examples/lda/settings.py",
    "MinimiseConfig": "hsa2c/minimising/settings.py",
}


@dataclass(frozen=True)
class Setting:
    """One field of a section."""

    name: str
    kind: str
    default: str
    text: str


@dataclass(frozen=True)
class Section:
    """One section of a configuration; with the name "" the fields that are in none."""

    name: str
    text: str
    settings: tuple[Setting, ...]


def sections(repository: Path, configuration: str) -> list[Section]:
    """The sections of an application's configuration, in their order.

    Raises:
        LookupError: A field has no text under it, or a class is not where an import says.
    """
    module = _Module(repository, CONFIGURATIONS[configuration])
    plain: list[Setting] = []
    found: list[Section] = []
    for field in _fields(module.classes[configuration]):
        kind = ast.unparse(field.annotation)
        place = module.find(kind) if kind.endswith("Config") else None
        if place is None:
            plain.append(_setting(module, field))
        else:
            there, section = place
            text = inspect.cleandoc(ast.get_docstring(section) or "")
            found.append(Section(_name(field), text, tuple(there.settings(section).values())))
    return [Section("", "", tuple(plain)), *found]


class _Module:
    """One source file: its classes, and where its imports lead."""

    def __init__(self, repository: Path, file: str) -> None:
        self._repository = repository
        tree = ast.parse((repository / file).read_text(encoding="utf-8"))
        self.file = file
        self.names = {}
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.names[node.targets[0].id] = node.value
        self.classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self._imported = {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def find(self, name: str) -> tuple[_Module, ast.ClassDef] | None:
        """The class of this name, here or where it is imported from; None: not the project's."""
        if name in self.classes:
            return self, self.classes[name]
        module, original = self._imported.get(name, ("", name))
        if not module.startswith("hsa2c."):
            return None
        there = _Module(self._repository, module.replace(".", "/") + ".py")
        if original not in there.classes:
            raise LookupError(f"{self.file}: {module} declares no {original}")
        return there, there.classes[original]

    def settings(self, section: ast.ClassDef) -> dict[str, Setting]:
        """Fields by name, of a section within it by dotted name; those of its base first, which its own replace."""
        found: dict[str, Setting] = {}
        for base in section.bases:
            place = self.find(ast.unparse(base))
            if place is not None:
                found |= place[0].settings(place[1])
        for field in _fields(section):
            name, kind = _name(field), ast.unparse(field.annotation)
            place = self.find(kind) if kind.endswith("Config") else None
            if place is None:
                found[name] = _setting(self, field, found)
            else:
                within = place[0].settings(place[1]).values()
                found |= {f"{name}.{one.name}": replace(one, name=f"{name}.{one.name}") for one in within}
        return found


def _fields(section: ast.ClassDef) -> Iterator[ast.AnnAssign]:
    for node in section.body:
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith("ClassVar"):
            yield node


def _name(field: ast.AnnAssign) -> str:
    assert isinstance(field.target, ast.Name)
    return field.target.id


def _setting(module: _Module, field: ast.AnnAssign, inherited: dict[str, Setting] | None = None) -> Setting:
    name = _name(field)
    text = _text_under(module, field) or (inherited or {}).get(name, Setting(name, "", "", "")).text
    if not text:
        raise LookupError(f"{module.file}, line {field.lineno}: {name} has no text under it")
    default = "" if field.value is None else ast.unparse(field.value)
    return Setting(name, _kind(module, field.annotation), default, text)


def _text_under(module: _Module, field: ast.AnnAssign) -> str:
    for section in module.classes.values():
        for before, after in zip(section.body, section.body[1:], strict=False):
            if before is field and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return inspect.cleandoc(str(after.value.value))
    return ""


def _kind(module: _Module, annotation: ast.expr) -> str:
    """What a value may be, in words: ``whole number, 1 to 100``."""
    if isinstance(annotation, ast.BinOp):
        return f"{_kind(module, annotation.left)}, or {_kind(module, annotation.right)}"
    if isinstance(annotation, ast.Subscript):
        head = ast.unparse(annotation.value)
        parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if head == "Literal":
            return ", ".join(str(ast.literal_eval(part)) for part in parts)
        if head == "Annotated":
            limits = [_limits(part) for part in parts[1:]]
            return ", ".join([_kind(module, parts[0]), *filter(None, limits)])
    written = ast.unparse(annotation)
    words = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "PathText": "path"}
    if written in words or written == "None":
        return words.get(written, "none")
    return _kind(module, module.names[written]) if written in module.names else written.lower()


def _limits(part: ast.expr) -> str:
    if not isinstance(part, ast.Call) or ast.unparse(part.func) != "Field":
        return ""
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join(
        f"{signs[word.arg]} {ast.unparse(word.value).replace('_', '')}" for word in part.keywords if word.arg in signs
    )
