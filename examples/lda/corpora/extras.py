"""Packages that only the example needs: looked for where they are used, so that their absence is a line that helps."""

from __future__ import annotations

import importlib
from types import ModuleType

from hsa2c.errors import ConfigError


def extra(module: str, package: str, what: str) -> ModuleType:
    """Import a module of the extra ``lda``.

    Args:
        module: "scipy.io".
        package: Whose it is, for people: "scipy".
        what: What needs it, the beginning of the message.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ConfigError(f"{what}: needs {package}: pip install 'hsa2c[lda]'") from None


def kernels() -> ModuleType:
    """The compiled loops of `hsa2c.examples.lda.corpora.kernels`.

    Raises:
        ConfigError: numba is not installed.
    """
    return extra("hsa2c.examples.lda.corpora.kernels", "numba", "a file of counts")
