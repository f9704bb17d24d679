"""A corpus that every Python brings along: the documentation of its standard library and of the language.

Docstrings of modules, classes and functions are taken from the library's sources without importing them, those of
modules that have no source from the interpreter; the language's help ("pydoc_data") is cut into pieces. It is a small
corpus, about 4,000 documents of 130,000 tokens and 3,000 words, and differs from one version of Python to the next.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora.storage import complete, write_entries
from hsa2c.examples.lda.corpora.text import count_words

NAME = "pydocs"

#: Of what this module does with its sources: a new one makes what is cached obsolete.
VERSION = 1

FEWEST_DOCUMENTS, LARGEST_SHARE = 5, 0.1
FEWEST_TOKENS = 10  # shorter ones say too little of their topics
PIECE_WORDS = 100  # of the help, whose topics are long

_LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "idle_test", "lib2to3", "turtledemo", "site-packages", "dist-packages"}
)
_BODIES = ("body", "handlers", "orelse", "finalbody")  # in the order of lines

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def ingredients() -> list[Any]:
    """What decides the content, for the cache."""
    return [NAME, VERSION, sys.version, str(standard_library())]


def read_pydocs(directory: Path) -> None:
    """Make the corpus.

    Args:
        directory: Where it is written.

    Raises:
        ConfigError: This Python has no sources of its library, or scikit-learn is missing.
    """
    sources = list(source_docstrings(standard_library()))
    if not sources:
        raise ConfigError(f"{NAME}: {standard_library()}: has no sources of Python's standard library")
    texts = dict.fromkeys([*sources, *builtin_docstrings(), *help_pieces()])  # each once, in this order
    rows, words, counts, vocabulary = count_words(texts, fewest=FEWEST_DOCUMENTS, share=LARGEST_SHARE, what=NAME)
    begin = np.concatenate([[0], np.cumsum(rows)])
    tokens = np.diff(np.concatenate([[0], np.cumsum(counts)])[begin])
    long = tokens >= FEWEST_TOKENS
    of_long = np.repeat(long, rows)
    write_entries(directory, words[of_long], counts[of_long])
    complete(directory, rows[long], vocabulary, NAME)


def source_docstrings(library: Path) -> Iterator[str]:
    """The docstrings in the sources of a folder and those below it, in order of their paths and lines."""
    found = []
    for here, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]  # one of them holds all that was installed
        found += [Path(here, name) for name in files if name.endswith(".py")]
    for path in sorted(found):
        yield from _docstrings(path)


def standard_library() -> Path:
    """The folder of this Python's own modules."""
    return Path(sysconfig.get_path("stdlib"))


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a source
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # a template, or for another Python
        return
    yield from _below([tree])


def _below(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Docstrings of statements and of those in them; expressions, which are most of a tree, are not looked into."""
    for node in nodes:
        if isinstance(node, _Documented) and (text := ast.get_docstring(node)):
            yield text
        for body in _BODIES:
            yield from _below(getattr(node, body, ()))


def builtin_docstrings() -> Iterator[str]:
    """The docstrings of modules that are part of the interpreter, of their functions, types and methods."""
    for name in sorted(sys.builtin_module_names):
        module = importlib.import_module(name)
        yield from _text_of(module)
        for _, value in sorted(vars(module).items()):
            if isinstance(value, types.BuiltinFunctionType | type):
                yield from _text_of(value)
            if isinstance(value, type):
                for _, method in sorted(vars(value).items()):
                    if callable(method) or isinstance(method, types.GetSetDescriptorType):
                        yield from _text_of(method)


def _text_of(value: object) -> Iterator[str]:
    text = getattr(value, "__doc__", None)
    if isinstance(text, str) and text:
        yield text


def help_pieces() -> Iterator[str]:
    """What ``help()`` knows of the language, in pieces."""
    from pydoc_data.topics import topics

    for _, text in sorted(topics.items()):
        words = text.split()
        for at in range(0, len(words), PIECE_WORDS):
            yield " ".join(words[at : at + PIECE_WORDS])
