"""Folders of what was trained, in the Hugging Face hub's format: to be kept, or to be given to others.

Such a folder has no code, and nothing is imported that it names, unless its user agrees: it may be a stranger's. Only
the directory of a run, which has been trained here, is trusted as one's own code is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hsa2c import names
from hsa2c.application import Application
from hsa2c.config.loading import dump
from hsa2c.errors import CheckpointError, ConfigError, HSA2CError
from hsa2c.observe.plot import plot
from hsa2c.observe.runlog import METRICS
from hsa2c.run import card as cards
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import directory as rundir
from hsa2c.run.checkpoint import Checkpoint
from hsa2c.words import Card

README = "README.md"
FILES = (README, cards.CHECKPOINT, cards.SETTINGS, cards.RESULTS, cards.CURVES, cards.FILM)
"""What `write` writes; the last two where they can be made."""

_HERE = "hf:"  # before the name of a repository


def settings(app: Application, checkpoint: Checkpoint, path: Path, *, trusted: bool) -> Any:
    """A checkpoint's configuration. What it names is imported only from a run's directory, or where the user agrees.

    Args:
        app: Its application.
        checkpoint: What was read.
        path: Its file.
        trusted: Whether the user agrees.

    Raises:
        ConfigError: It is of another application, or a setting is wrong.
        CheckpointError: It needs code, and the user has not agreed.
    """
    checkpoints.check_identity(checkpoint, {"application": app.name}, source=path)
    config = app.build_config(checkpoint.config)
    own = path.parent.name == checkpoints.FOLDER and rundir.is_there(path.absolute().parents[1] / rundir.CONFIG)
    code = [name for name in app.imports(config) if not names.is_given(name)]
    if code and not (own or trusted):
        raise CheckpointError(
            f"{path}: needs the code {', '.join(code)}, and is not in a run's directory: if you know that code,"
            " --trust-code (trust_code=True) imports it"
        )
    return config


def settings_of_same(app: Application, checkpoint: Checkpoint, path: Path, *, trusted: bool) -> Any:
    """The same of a checkpoint whose network and data are what its configuration says today; arguments as there.

    Raises:
        ConfigError: As there.
        CheckpointError: As there; or they are not.
    """
    config = settings(app, checkpoint, path, trusted=trusted)
    checkpoints.check_identity(checkpoint, app.identity(config), source=path)
    return config


def write(
    app: Application,
    target: Path,
    folder: Path,
    *,
    options: Mapping[str, Any],
    newest: bool = False,
    trusted: bool = False,
) -> list[str]:
    """Measure what was trained, and write its folder.

    Args:
        app: Its application.
        target: A run's directory, or a checkpoint.
        folder: A new one, an empty one, or one that this has written: its files are replaced.
        options: For `Application.card`.
        newest: The newest checkpoint, though there is a best one.
        trusted: See `settings`.

    Returns:
        What the user should be told, in lines.

    Raises:
        ConfigError: There is no such checkpoint, the folder is another's, or cannot be written.
    """
    older = _check_place(folder)
    checkpoint, path, skipped = checkpoints.read(target, prefer="newest" if newest else "best")
    config = settings_of_same(app, checkpoint, path, trusted=trusted)
    code = _code(app, config)
    remarks = [f"passed over: {line}" for line in skipped]
    with _beside(folder) as new:
        card = app.card(config, checkpoint.v, new / cards.FILM, **options)
        remarks += [*card.remarks, *_curves(app, config, path, new / cards.CURVES)]
        _fill(new, app, checkpoint, card, code)
        _put(new, folder)
    return [*remarks, *([f"{folder}: older files were replaced"] if older else [])]


def _fill(new: Path, app: Application, checkpoint: Checkpoint, measured: Card, code: Mapping[str, str]) -> None:
    """Write what a folder has beside its pictures."""
    published = _published(checkpoint, code)
    card = Card(**_renamed(dataclasses.asdict(measured), code))
    checkpoints.save_best(new, published)
    (new / cards.SETTINGS).write_text(dump(published.config), encoding="utf-8")
    (new / cards.RESULTS).write_text(cards.results(card), encoding="utf-8")
    files = [name for name in FILES if (new / name).exists()]
    config = app.build_config(published.config)
    text = cards.write(app, config, card, counters=checkpoint.counters, code=[*code.values()], files=files)
    (new / README).write_text(text, encoding="utf-8")


def check_upload(repository: str) -> None:
    """Find out before any work whether `upload` could begin.

    Raises:
        ConfigError: The name is no repository's, or the package is missing.
    """
    _hub("--to-hub", repository)


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Send a folder's files to a repository of the hub, which is made where there is none; gives back its address.

    Args:
        folder: One that `write` has written.
        repository: user/name.
        private: Whether a new repository is to be private.

    Raises:
        ConfigError: The package is missing.
        HSA2CError: The hub has refused it, or is not reached; the folder stays.
    """
    hub = _hub("--to-hub", repository)
    try:
        api = hub.HfApi()
        api.create_repo(repo_id=repository, private=private, exist_ok=True)
        files = list(FILES)
        api.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=files, delete_patterns=files)
    except Exception as error:  # of the package's, of many kinds
        raise HSA2CError(f"--to-hub {repository}: {_line(error)}; {folder} is written") from None
    return f"https://huggingface.co/{repository}"


def local(target: Any) -> Any:
    """A target as it is; but of ``hf:user/name`` its checkpoint, fetched from the hub.

    Raises:
        ConfigError: The name is no repository's, or the package is missing.
        HSA2CError: There is no such file, or the hub is not reached.
    """
    if not (isinstance(target, str) and target.startswith(_HERE)):
        return target
    hub = _hub(_HERE, repository := target.removeprefix(_HERE))
    try:
        return Path(hub.hf_hub_download(repo_id=repository, filename=cards.CHECKPOINT))
    except Exception as error:  # of the package's, of many kinds
        raise HSA2CError(f"{target}: cannot be fetched: {_line(error)}") from None


def _hub(who: str, repository: str) -> Any:
    """The hub's package, for a repository of that name."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
        raise ConfigError(f"{who} {repository!r}: must be user/name")
    try:
        return importlib.import_module("huggingface_hub")
    except ModuleNotFoundError:
        raise ConfigError(f"{who} {repository}: needs huggingface_hub: pip install 'hsa2c[hub]'") from None


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _check_place(folder: Path) -> bool:
    """Whether older files are to be replaced.

    Raises:
        ConfigError: The folder is another's.
    """
    try:
        if not os.path.lexists(folder):
            return False
        found = [path.name for path in folder.iterdir() if not path.name.startswith(".")]  # a clone has .git
        if not found:
            return False
        if README in found and cards.is_card((folder / README).read_text(encoding="utf-8", errors="replace")):
            return True
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise ConfigError(f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    raise ConfigError(f"{folder}: must be new, empty, or a folder that push has written; it has {sorted(found)[0]}")


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new folder on the same file system, which goes at the end. Where none can be made, nothing could be written."""
    place = folder.absolute()
    near = next(path for path in (place, *place.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryDirectory(prefix=".push-", dir=near) as new:
            yield Path(new)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _put(new: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (new / name).exists():
            (new / name).replace(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)  # of the older ones


def _code(app: Application, config: Any) -> dict[str, str]:
    """The code that is needed, and what it is called elsewhere: what a script has, by the script's module."""
    code = {}
    for name in app.imports(config):
        if not names.reaches_others(name):
            raise ConfigError(f"{name.rpartition(':')[2]}: others cannot find it: must be at the top of a file")
        where, colon, attribute = name.rpartition(":")
        code[name] = f"{Path(where).stem}{colon}{attribute}" if where.endswith(".py") else name
    return code


def _published(checkpoint: Checkpoint, code: Mapping[str, str]) -> Checkpoint:
    """A checkpoint for others: without this machine's folders and hosts."""
    config = {name: section for name, section in checkpoint.config.items() if name != "output"}
    config["cluster"] = dict(config.get("cluster", {})) | {"hosts": None}
    identity = _renamed(checkpoint.identity, code)
    return dataclasses.replace(checkpoint, config=_renamed(config, code), identity=identity)


def _renamed(tree: Any, code: Mapping[str, str]) -> Any:
    if isinstance(tree, Mapping):
        return {key: _renamed(value, code) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_renamed(value, code) for value in tree]
    for name, short in code.items() if isinstance(tree, str) else ():
        tree = tree.replace(name, short)
    return tree


def _curves(app: Application, config: Any, checkpoint: Path, path: Path) -> list[str]:
    """Draw the run's curves, where it is one; why not, in lines."""
    run = checkpoint.parents[1] if checkpoint.parent.name == checkpoints.FOLDER else checkpoint.parent
    if not (run / METRICS).exists():
        return []
    words = app.pictures
    try:
        plot([run], path, tags=app.drawn(config), x="work", step_name=words.unit, labels=words.labels)
    except ConfigError as error:
        return [f"without {path.name}: {error}"]
    return []
