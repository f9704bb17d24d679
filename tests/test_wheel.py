"""Source archive and wheel are whole, and the wheel works outside the checkout, whatever lies beside it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.processes import REPOSITORY, SHORT_GAMES, TINY, environment

FOLDERS = ("agents", "envs", "configs", "examples")  # links lead from hsa2c to them
PACKAGES = (*FOLDERS, "tests", "bench")
MODULES = ("random", "signal", "torch", "numpy", "yaml", "queue", "json", "socket", "threading", "mpi4py", "train")
BESIDE = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "constraints.txt"}
MADE = {"pyproject.toml", "setup.cfg", "hsa2c.egg-info"}  # the last two by setuptools
NOT_SOURCES = (".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "checkpoints")
PATIENCE_S = 100

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def sources():
    """What a package must have, as it is named there."""
    found = {path for kind in ("*.py", "*.yaml", "py.typed") for path in (REPOSITORY / "hsa2c").rglob(kind)}
    for folder in FOLDERS:  # rglob follows no links
        found |= {REPOSITORY / "hsa2c" / folder / path.relative_to(REPOSITORY / folder)
                  for kind in ("*.py", "*.yaml") for path in (REPOSITORY / folder).rglob(kind)}  # fmt: skip
    return {path.relative_to(REPOSITORY).as_posix() for path in found}


def ran(folder, *command, **variables):
    """Its output; it must end well."""
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment(PYTHONPATH="", **variables),
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The source archive, and the wheel that is built from it; a copy of the checkout, for setuptools writes there."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(REPOSITORY, folder / "copy", symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    ran(folder, sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "copy")
    [archive], [wheel] = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return archive, wheel


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory):
    """A new environment's folder of commands: the wheel is in it, and what that needs is this environment's."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    ran(
        folder, sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", archives[1]
    )
    [packages] = folder.glob("lib/*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # .pth files there, an editable's, count not
    return folder / "bin"


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    """A folder in which packages and modules bear the names of ours and of others'."""
    folder = tmp_path_factory.mktemp("trap")
    for name in PACKAGES:
        (folder / name).mkdir()
    for path in [f"{name}/__init__.py" for name in PACKAGES] + [f"{name}.py" for name in MODULES]:
        (folder / path).write_text(f"raise SystemExit('{path} of the current directory')\n")
    return folder


@pytest.fixture(scope="module")
def run(installed, trap):
    """Runs a command of the new environment's in that folder."""
    path = os.pathsep.join([str(installed), str(Path(sys.executable).parent), os.environ["PATH"]])  # mpiexec is there
    return lambda command, *arguments: ran(trap, installed / command, *arguments, PATH=path)


@pytest.mark.timeout(120)
def test_wheel_is_whole_and_has_one_package(archives):
    names = set(zipfile.ZipFile(archives[1]).namelist())
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == sources()
    assert [name.split("/", 1)[1] for name in sorted(info) if "LICENSE" in name] == ["licenses/LICENSE"]
    assert {name.split("/")[0] for name in info} == {"-".join(archives[1].name.split("-")[:2]) + ".dist-info"}


@pytest.mark.timeout(120)
def test_source_archive_is_whole_and_has_no_tests(archives):
    with tarfile.open(archives[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive if not member.isdir()}
    assert {name for name in names if name.startswith("hsa2c/")} == sources()
    assert {name.split("/")[0] for name in names} == BESIDE | MADE | {"hsa2c"}


def test_trains_and_evaluates(run, trap):
    options = ("--p", 1, "--B", 2, "--nodes", 2, "--agent-steps", 50, "--name", "pong", "--json", *SHORT_GAMES, *TINY)
    assert json.loads(run("hsa2c", "train", "--game", "Pong", *options))["reason"]
    assert json.loads(run("hsa2c", "evaluate", trap / "runs" / "pong", "--games", 1, "--json"))["games"] == 1


def test_finds_topics(run, trap):
    (trap / "counts").write_text(
        "8\n4\n16\n" + "".join(f"{d} {w + d % 2 * 2} 3\n" for d in range(1, 9) for w in (1, 2))
    )
    (trap / "words").write_text("one\ntwo\nthree\nfour\n")
    options = ("--corpus", "counts", "--vocab", "words", "--topics", 2, "--validation", 2, "--test", 2, "--batch", 2)
    limits = ("--p", 1, "--minutes", 0.01, "--name", "topics", "--json")
    assert json.loads(run("python", "-m", "hsa2c.examples.lda", *options, *limits))["reason"]


def test_is_found_from_a_script_beside_such_packages(installed, tmp_path):
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('another package')\n")
    script = tmp_path / "script.py"
    script.write_text("import hsa2c.agents.stall, hsa2c.envs.atari, hsa2c.examples.lda.topics\nprint(hsa2c.__file__)\n")
    assert Path(ran(tmp_path, installed / "python", script).strip()).is_relative_to(installed.parent)
