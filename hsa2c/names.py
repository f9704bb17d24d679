"""A user's own code, by name: so it reaches other processes and later sessions, and never as a pickle.

The name of a function is ``package.module:function``, or ``/folder/script.py:function`` where it is in the script that
is run. Another process imports the script under another name than ``__main__``, as multiprocessing does. What has no
such name (a lambda, a function within a function, one of an interactive session) is found in this process, and in those
that are forked from it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from hsa2c import interpreter
from hsa2c.errors import ConfigError, HSA2CError

_HERE = "in-process"  # the module of what has no name elsewhere
_SCRIPT = "__mp_main__"  # what a script is imported as, by multiprocessing too
_MAIN = ("__main__", _SCRIPT)

_given: dict[str, Any] = {}  # by name: this process's, and so that of all which are forked from it
_importing: list[str] = []  # scripts whose import has not ended


def give(thing: Any, what: str) -> str:
    """The name by which `find` finds a thing.

    Args:
        thing: A function, a class or an instance.
        what: A word for it, where it has no name.
    """
    if (name := _name(thing)) is None:
        name = stem = f"{_HERE}:{getattr(thing, '__qualname__', what)}"
        number = 2
        while _given.get(name, thing) is not thing:  # there are many lambdas
            name, number = f"{stem}#{number}", number + 1
    _given[name] = thing
    return name


def is_given(name: str) -> bool:
    """Whether `give` was asked for this name in this process."""
    return name in _given


def reaches_others(name: str) -> bool:
    """Whether other processes than those forked from this one find what has this name."""
    return not name.startswith(f"{_HERE}:")


def find(name: str) -> Any:
    """What has this name.

    Raises:
        ConfigError: There is nothing, or it was in a process that has ended.
    """
    if name in _given:
        return _given[name]
    where, colon, attribute = name.rpartition(":")
    if not colon or not where or not attribute:
        raise ConfigError(f"{name!r}: must be module:name, or /folder/script.py:name")
    if not reaches_others(name):
        raise ConfigError(f"{name}: was in the process that began this run; others find only what is in a file")
    module = _script(where) if where.endswith(".py") else module_of(where, name)
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise ConfigError(f"{name}: there is no {attribute} in {where}") from None


def module_of(where: str, what: str) -> ModuleType:
    """A module by its name: it is installed, or lies in the current directory, or where this process's parent finds it.

    Args:
        where: Its name.
        what: Who asks for it, for the complaint.

    Raises:
        ConfigError: There is none.
        ModuleNotFoundError: It imports one that is not there.
    """
    interpreter.find(where)
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if not f"{where}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"{what}: no module {where} is installed, or in the current directory") from None


def refuse_import(call: str) -> None:
    """Say so where a script calls what it may call once only, while another process imports it.

    Raises:
        ConfigError: A script is being imported.
    """
    if _importing:
        script = Path(_importing[-1]).name
        raise ConfigError(f'{script}: calls {call} when it is imported: must do so under if __name__ == "__main__":')


def _name(thing: Any) -> str | None:
    """None where it has none that other processes could use."""
    module, qualname = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if module is None or qualname is None:  # an instance: a global of some module
        return _global_name(thing)
    if (where := _where(module)) is None or "<" in qualname:
        return None
    try:
        same = reduce(getattr, qualname.split("."), sys.modules[module]) is thing
    except (AttributeError, KeyError):
        return None
    return f"{where}:{qualname}" if same else None


def _global_name(thing: Any) -> str | None:
    modules = sorted(sys.modules.items(), key=lambda item: item[0] != "__main__")
    for module, loaded in modules:
        for name, value in list(getattr(loaded, "__dict__", {}).items()):
            if value is thing and (where := _where(module)) is not None:
                return f"{where}:{name}"
    return None


def _where(module: str) -> str | None:
    """By which name another process imports a module of this one."""
    if module not in _MAIN:
        return module
    main = sys.modules[module]
    if (spec := getattr(main, "__spec__", None)) is not None and spec.name not in _MAIN:  # python -m
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return str(Path(file).resolve()) if file and file.endswith(".py") and Path(file).exists() else None


def _script(path: str) -> ModuleType:
    for name in _MAIN:
        loaded = sys.modules.get(name)
        file = getattr(loaded, "__file__", None)
        if loaded is not None and file and Path(file).resolve() == Path(path):
            return loaded
    spec = importlib.util.spec_from_file_location(_SCRIPT, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ConfigError(f"{path}: there is no such script")
    folder = str(Path(path).parent)
    if folder not in sys.path:
        sys.path.append(folder)  # what lies beside it, after Python's own
    module = sys.modules[_SCRIPT] = importlib.util.module_from_spec(spec)
    _importing.append(path)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[_SCRIPT]
        if isinstance(error, HSA2CError) or not isinstance(error, Exception):
            raise
        raise ConfigError(f"{path}: cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        _importing.pop()
    return module
