"""The house's rules that no other check holds: files and functions that fit, and what no file takes from another."""

import ast
import contextlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.processes import REPOSITORY

RULED = ("hsa2c", "agents", "envs")
SOURCES = (*RULED, "examples", "bench")
MOST_LINES = 350  # of a file
MOST_FUNCTION_LINES = 40  # from `def` to its last line, docstring included
MOST_DPSGD_LINES = 900
PATCHING = ("setattr", "setitem", "getattr", "delattr")
HOOKS = {"_receive", "_answer", "_say_stop", "_slept_s"}  # what a transport gives its port; a port made of ports asks


def files(*folders):
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path):
    return path.relative_to(REPOSITORY).as_posix()


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def dotted(path):
    """Folders beside `hsa2c` are in it, by links; `bench` stays out."""
    module = name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return module if module.split(".")[0] in ("hsa2c", "bench") else f"hsa2c.{module}"


def functions(module):
    return [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def private(identifier):
    return identifier.startswith("_") and not identifier.endswith("__")


def spelt(expression):
    """As in the file; a name at once, for there are many."""
    return expression.id if isinstance(expression, ast.Name) else ast.unparse(expression)


def taken(module):
    """Names that a module takes from other files of the project: where, and what; lazily or for types only, too."""
    imported = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            imported |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    own = {alias for alias, whole in imported.items() if whole.split(".")[0] in SOURCES}
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in SOURCES:
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and spelt(node.value) in own:
            yield node.lineno, node.attr


def defined(module):
    """Private names that a module gives to functions, classes, constants and attributes."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def reached(module):
    """Names that a test takes of others, of any object but its own; in what it patches and in other processes, too."""
    yield from taken(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and private(node.attr):
            if spelt(node.value) not in {"self", "cls", "super()"}:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and spelt(node.func).endswith(PATCHING):
            yield from ((node.lineno, part.value) for part in node.args if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
            with contextlib.suppress(SyntaxError):
                yield from ((node.lineno, what) for _, what in reached(ast.parse(node.value)))


def imports():
    """Each module of the project, and those of it that it imports; lazily or for types only, too."""
    modules = {dotted(path): path for path in files(*SOURCES)}
    del modules["hsa2c"]  # the front door: a list of names, each found when it is asked for
    graph = {}
    for module, path in modules.items():
        graph[module] = found = set()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names if alias.name in modules)
            elif isinstance(node, ast.ImportFrom):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                found.update(one if one in modules else node.module for one in whole)
        found.intersection_update(modules)
        found.discard(module)
    return graph


def test_every_file_fits():
    assert files(*RULED)
    assert [(name(path), lines(path)) for path in files(*RULED) if lines(path) > MOST_LINES] == []


def length(path, function):
    """With its docstring; of the front door, whose docstrings are the reference, its code."""
    last, docstring = function.end_lineno, ast.get_docstring(function)
    reference = name(path).startswith("hsa2c/api/") and docstring is not None
    return last - (function.body[0].end_lineno if reference else function.lineno - 1)


def test_every_function_fits_a_screen():
    long = [
        (name(path), function.name, length(path, function))
        for path in files(*RULED)
        for function in functions(tree(path))
        if length(path, function) > MOST_FUNCTION_LINES
    ]
    assert long == []


def test_nothing_takes_a_private_name_of_another_file():
    assert [
        (name(path), line, what) for path in files(*SOURCES) for line, what in taken(tree(path)) if private(what)
    ] == []


def test_no_test_takes_a_private_name_of_the_project():
    """A name that a test defines, too, is taken for its own; a private one of another library is not ours to forbid."""
    ours = {what for path in files(*SOURCES) for what in defined(tree(path)) if private(what)}
    found = []
    for path in {*files("tests")} - {Path(__file__)}:
        forbidden = ours.difference(HOOKS, defined(tree(path)))
        found += [(name(path), line, what) for line, what in reached(tree(path)) if what in forbidden]
    assert found == []


def test_no_circle_of_imports():
    graph = imports()
    while ends := [module for module, found in graph.items() if not found]:
        for module in ends:
            del graph[module]
        for found in graph.values():
            found.difference_update(ends)
    assert graph == {}, "who is left imports, through others, itself"


def test_the_algorithms_are_small():
    assert 0 < sum(map(lines, files("hsa2c/dpsgd"))) < MOST_DPSGD_LINES


def test_the_algorithms_need_numpy_alone():
    modules = [name(path).removesuffix(".py").replace("/", ".") for path in files("hsa2c/dpsgd")]
    script = f"import sys, importlib\nfor name in {modules!r}:\n    importlib.import_module(name)\nprint(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    there = {module.split(".")[0] for module in told.stdout.split()}
    heavy = {"torch", "mpi4py", "gymnasium", "ale_py", "pydantic", "rich", "safetensors", "yaml", "matplotlib"}
    assert "numpy" in there
    assert there & heavy == set()


@pytest.mark.parametrize(
    "source",
    [
        "from hsa2c.run.launcher import _after",
        "from hsa2c.run import launcher\nlauncher._after",
        "import bench.rate\nbench.rate._lines",
    ],
)
def test_a_private_name_is_seen(source):
    assert any(private(what) for _, what in taken(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "port._inbox",
        "monkeypatch.setattr(machine, '_git', None)",
        "run('import sys; from hsa2c.commands import entry; entry._ATTENDED = ()')",
    ],
)
def test_a_private_name_in_a_test_is_seen(source):
    assert any(private(what) for _, what in reached(ast.parse(source)))
