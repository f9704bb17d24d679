import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsa2c import interpreter
from tests.processes import REPOSITORY, TINY, environment, started

TRAPS = ("random", "queue", "yaml", "types", "torch", "numpy", "json", "socket", "signal", "threading")
PATIENCE_S = 60


@pytest.fixture
def trap(tmp_path):
    """A folder in which files bear the names of modules."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in TRAPS:
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the current directory')\n")
    return folder


def python(folder, *arguments, **variables):
    return subprocess.run(
        arguments, cwd=folder, env=environment(**variables), capture_output=True, text=True, timeout=PATIENCE_S,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_children_do_not_look_into_the_current_directory(trap):
    given = interpreter.environment(environment(PYTHONPATH=f"{os.pathsep}{os.pathsep}"))
    modules = "hsa2c.run.entry, hsa2c.run.fork_server, hsa2c.doctor.probe"
    command = [*interpreter.command("hsa2c.run.entry")[:2], "-c", f"import {modules}, random, queue, yaml, torch"]
    assert interpreter.command("hsa2c.run.entry", "x") == [sys.executable, "-P", "-m", "hsa2c.run.entry", "x"]
    done = subprocess.run(command, cwd=trap, env=given, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


def test_python_path_of_children_is_absolute_and_has_no_empty_entry(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["", "relative", str(tmp_path), str(REPOSITORY), f"{sys.prefix}/lib"])
    given = interpreter.environment({"PYTHONPATH": ":mine::/yours:mine:", "A": "1", "HOME": "/me"})
    expected = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}/mine:/yours", "HSA2C_PATH": f"{tmp_path}/relative:{tmp_path}"}
    assert given == expected | {"A": "1", "HOME": "/me"}
    assert interpreter.environment({})["PYTHONPATH"] == str(REPOSITORY)


def test_own_modules_of_the_current_directory_are_found_last(trap):
    (trap / "mine.py").write_text("import random, queue\nAPPLICATION = random.Random\n")
    script = (
        "import sys; from hsa2c import application; application.locate('mine'); print(sys.modules['mine'].APPLICATION)"
    )
    done = python(trap, sys.executable, "-P", "-c", script)
    assert done.stdout == "<class 'random.Random'>\n", done.stderr


@pytest.mark.parametrize(
    "command",
    [
        (str(REPOSITORY / "train.py"), "--help"),
        (str(REPOSITORY / "evaluate.py"), "--help"),
        ("-m", "hsa2c", "rates"),
        ("-m", "hsa2c", "plot", "none"),
        ("-m", "examples.lda", "show", "none"),
    ],
    ids=["train", "evaluate", "rates", "plot", "lda"],
)
def test_commands_do_not_look_into_the_current_directory(trap, command):
    done = python(trap, sys.executable, *command)
    assert done.returncode == (2 if "none" in command else 0), done.stderr
    assert "of the current directory" not in done.stderr


@pytest.mark.parametrize("first", ["", "here"])
def test_current_directory_goes_to_the_end_of_the_search_path(monkeypatch, tmp_path, first):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [first and str(tmp_path), "/one", "/two"])
    interpreter.settle()
    interpreter.settle()
    assert sys.path == ["/one", "/two", first and str(tmp_path)]


def test_checkout_stays_first_in_the_search_path(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, "path", [str(REPOSITORY), "/one"])
    interpreter.settle()
    assert sys.path == [str(REPOSITORY), "/one"]


@pytest.mark.parametrize("home", [None, ""])
def test_who_has_no_home_gets_one(monkeypatch, home):
    monkeypatch.setenv("HOME", "/before")
    interpreter.settle()
    assert os.environ["HOME"] == "/before"
    monkeypatch.setenv("HOME", "") if home is not None else monkeypatch.delenv("HOME")
    interpreter.settle()
    assert Path(os.environ["HOME"]).is_absolute()
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 5)  # nobody's
    interpreter.settle()
    assert os.environ["HOME"] == "/"


@pytest.mark.slow
def test_run_without_a_home_among_files_with_modules_names(trap, tmp_path):
    options = ["--p", 1, "--nodes", 2, "--agent-steps", 50, "--run-dir", tmp_path, "--name", "run", *TINY]
    script = [sys.executable, str(REPOSITORY / "train.py"), *map(str, options)]
    with started(tmp_path / "run", "-c", CHANGE, trap, *script, HOME="") as run:
        assert run.end() == 0, run.stderr()
    run.assert_gone()


#: Another directory, and no HOME at all, for what `started` starts.
CHANGE = "import os, sys; os.chdir(sys.argv[1]); os.environ.pop('HOME'); os.execv(sys.argv[2], sys.argv[2:])"
