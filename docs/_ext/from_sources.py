"""Parts of the documents that come from the code, so that neither can say what the other does not.

A line of its own in a page is replaced by Markdown:

    {{ settings AtariConfig }}      every setting of a configuration; "without a b" leaves out sections
    {{ help hsa2c.commands.train }} what a command prints with --help
    {{ api }}                       the public names of `hsa2c`, by their docstrings
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from declared import Section, sections

REPOSITORY = Path(__file__).resolve().parents[2]
_LINE = re.compile(r"^\{\{ (\w+)((?: [\w.-]+)*) \}\}$", re.MULTILINE)


def expand(text: str) -> str:
    """Replace each such line of a page."""
    makers: dict[str, Callable[..., str]] = {"settings": _settings, "help": _help, "api": _api}
    return _LINE.sub(lambda match: makers[match[1]](*match[2].split()), text)


def _settings(configuration: str, *without: str) -> str:
    return "\n\n".join(_section(each) for each in sections(REPOSITORY, configuration) if each.name not in without)


def _section(section: Section) -> str:
    dotted = f"{section.name}." if section.name else ""
    blocks = [f"### `{section.name}`" if section.name else "### In no section", section.text]
    for setting in section.settings:
        text = re.sub(r"\n\s*", "\n  ", _escaped(setting.text))
        default = "None" if setting.default == "" else setting.default
        blocks.append(
            f"`{dotted}{setting.name}`\n: Default `{default}`. Allowed: {_escaped(setting.kind)}.\n\n  {text}"
        )
    return "\n\n".join(filter(None, blocks))


def _escaped(text: str) -> str:
    """Text of a docstring as Markdown: a star or a bracket outside backticks is itself."""
    parts = re.split(r"(`+[^`]*`+)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*<\[])", r"\\\1", part) for part in parts)


def _help(*words: str) -> str:
    """Of a command of `hsa2c` (``train``), or of a module (``examples.lda show``)."""
    command = [sys.executable, "-m", *(words if "." in words[0] else ("hsa2c", *words)), "--help"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return f"```text\n{done.stdout.rstrip()}\n```"


def _api() -> str:
    package = importlib.import_module("hsa2c")
    blocks = []
    for name in getattr(package, "__all__", ()):
        value = getattr(package, name)
        if inspect.isclass(value):
            blocks.append(f".. autoclass:: hsa2c.{name}\n   :members:\n   :show-inheritance:")
        elif callable(value):
            blocks.append(f".. autofunction:: hsa2c.{name}")
    return "```{eval-rst}\n" + "\n\n".join(blocks) + "\n```" if blocks else ""


def _read(_app: Any, _page: str, source: list[str]) -> None:
    source[0] = expand(source[0])


def setup(app: Any) -> dict[str, bool]:
    """Be an extension of Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
