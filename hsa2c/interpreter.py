"""Python processes: where they look for modules, and where their home is.

Nobody looks into the current directory before the standard library and what is installed: a ``random.py`` that lies
there is not Python's.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import sys
from collections.abc import Mapping
from pathlib import Path

_MORE = "HSA2C_PATH"  # environment variable: where its parent finds modules, after Python's own
_PACKAGES = str(Path(__file__).resolve().parents[1])


def settle() -> None:
    """Make it so for this process, and for what it starts; more than once does no harm.

    ``python -m`` puts the current directory first. It goes to the end: a module of the user's own may be there.
    """
    current = _current_directory()
    if sys.path and current is not None and sys.path[0] in ("", current) and current != _PACKAGES:
        sys.path.append(sys.path.pop(0))
    if not os.environ.get("HOME"):  # Open MPI does not start without
        os.environ["HOME"] = _home()


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a child process that runs a module of this project."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """The environment of such a child process: it finds this project also where that is not installed."""
    given = base.get("PYTHONPATH", "").split(os.pathsep)
    paths = [_PACKAGES, *(str(Path(path).absolute()) for path in given if path)]  # an empty one: where it stands
    ours = (sys.prefix, sys.base_prefix, _PACKAGES)
    places = [str(Path(path).absolute()) for path in sys.path if path and not path.startswith("__")]
    own = [path for path in places if not path.startswith(ours)]
    needed = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), _MORE: os.pathsep.join(own)}
    return dict(base) | needed | ({} if base.get("HOME") else {"HOME": _home()})  # Open MPI does not start without


def find(module: str) -> None:
    """Let a module be found that is only in the current directory, as an application of the user's own may be, or where
    this process's parent finds it.
    """
    root = module.partition(".")[0]
    if root not in sys.modules and importlib.util.find_spec(root) is None:
        places = [_current_directory(), *os.environ.get(_MORE, "").split(os.pathsep)]
        sys.path += [place for place in places if place and place not in sys.path]


def at_home(path: str) -> str:
    """A path as text, in which ``~`` is the user's home, and ``~somebody`` somebody's.

    Raises:
        ValueError: There is no such user.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - Path's fails where there is no home
    if found.startswith("~"):
        raise ValueError(f"a path whose user is known here, or ./{path}")
    return found


def _current_directory() -> str | None:
    """None where it has been removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def _home() -> str:
    """As the user's entry says; the root where there is none, as containers have it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/"
