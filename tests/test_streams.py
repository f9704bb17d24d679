"""Real processes, whose streams are closed, full, broken, or of a code page that lacks what is shown."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PATIENCE_S = 60
WIDE = "τ ≥ 1 ┃ naïve"

BEGIN = "import sys; from hsa2c import streams; from hsa2c.commands.options import guarded; "
SHOW = BEGIN + f"guarded('prog', lambda: print({WIDE!a}) or print({WIDE!a}, file=sys.stderr) or 0)"
NAME = BEGIN + "sys.exit(guarded('prog', lambda: print(sys.argv[1]) or 0))"
RESULT = BEGIN + "sys.exit(guarded('prog', lambda: print('result') or 0))"
PROGRESS = BEGIN + "sys.exit(guarded('prog', lambda: print('progress', file=sys.stderr) or print('result') or 0))"
#: A file that is opened later does not become a standard stream, and a child has all three.
DESCRIPTORS = (
    BEGIN + "import os, subprocess; streams.settle(); file = open(sys.argv[1], 'w'); assert file.fileno() > 2;"
    " open(sys.argv[1], 'w').write(str([os.fstat(0), os.fstat(1), os.fstat(2)]) and 'three');"
    " subprocess.run([sys.executable, '-c', 'import sys; sys.stdin.read(); sys.stderr.write(str(1))'], check=True)"
)


def run(*command, shell="", **variables):
    """Of a command line, with redirections of a shell's."""
    whole = ["bash", "-c", f'"$@" {shell}', "bash", sys.executable, *map(str, command)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    done = subprocess.run(whole, capture_output=True, env=environment, cwd=REPOSITORY, timeout=PATIENCE_S, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "iso-8859-1:strict"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "en_US.ISO-8859-1"},  # where there is no such locale: the C locale
    ],
)
def test_characters_that_cannot_be_shown_are_replaced(variables):
    code, out, err = run("-c", SHOW, **variables)
    assert code == 0, err
    assert b" 1 " in out
    assert b" 1 " in err
    assert b"Traceback" not in err


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONUTF8": "1", "PYTHONIOENCODING": ":strict"}]
)
def test_file_names_that_are_no_text_are_shown_somehow(variables):
    code, out, err = run("-c", NAME, os.fsdecode(b"caf\xe9-1"), **variables)
    assert (code, err) == (0, b"")
    assert out.startswith(b"caf")
    assert out.endswith(b"-1\n")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("-c", RESULT), id="result"),
        pytest.param(("-m", "hsa2c", "--help"), id="usage"),
        pytest.param(("-m", "hsa2c", "plan", "--help"), id="plan", marks=pytest.mark.slow),
        pytest.param(("train.py", "--help"), id="train", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("shell", "why"),
    [
        (">/dev/full", b"cannot be written: No space left on device"),
        (">&-", b"is closed"),
        ('| true; exit "${PIPESTATUS[0]}"', b"cannot be written: Broken pipe"),
    ],
    ids=["full", "closed", "pipe"],
)
def test_result_that_cannot_be_written_is_one_line(command, shell, why):
    if "true" in shell:
        command = ("-c", f"import time; time.sleep(0.5); {RESULT}") if command[0] == "-c" else command
    code, _, err = run(*command, shell=shell)
    assert code == 1
    assert err.endswith(b"stdout: " + why + b"\n")
    assert err.count(b"\n") == 1


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", "<&- 2>&-", "2> >(true)"])
def test_progress_that_cannot_be_written_ends_nothing(shell):
    assert run("-c", f"import time; time.sleep(0.3); {PROGRESS}", shell=shell) == (0, b"result\n", b"")


def test_complaint_goes_nowhere_else_when_stderr_is_closed():
    assert run("-m", "hsa2c", "nosuch", shell="2>&-") == (2, b"", b"")


def test_closed_streams_are_not_replaced_by_files_that_are_opened_later(tmp_path):
    code, _, _ = run("-c", DESCRIPTORS, tmp_path / "file", shell="<&- >&- 2>&-")
    assert code == 0
    assert (tmp_path / "file").read_text() == "three"


def test_terminal_that_goes_away_ends_nothing(tmp_path):
    ours, theirs = pty.openpty()
    script = "import pathlib; sys.stdin.read(); print('x', file=sys.stderr); pathlib.Path(sys.argv[1]).touch()"
    script = f"{BEGIN}streams.settle(); assert sys.stderr.isatty(); print('there', file=sys.stderr); {script}"
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "lived"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=theirs, cwd=REPOSITORY,
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.kill)
        os.close(theirs)
        assert os.read(ours, 100).startswith(b"there")
        os.close(ours)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    assert (tmp_path / "lived").exists()


def test_without_a_terminal_there_is_no_width(capsys, monkeypatch):
    from rich.table import Table

    from hsa2c import streams

    monkeypatch.setenv("COLUMNS", "20")
    table = Table("name", "number", box=None)
    table.add_row("n" * 300, "1" * 300)
    streams.console().print(table)
    out = capsys.readouterr().out
    assert "n" * 300 in out
    assert "1" * 300 in out


def test_nothing_is_written_twice_when_a_signal_comes_upon_it():
    script = f"""{BEGIN}
import signal, time
streams.settle()
signal.signal(signal.SIGUSR1, signal.default_int_handler)
for number in range(20):
    try:
        print(number, flush=True)
        while True:
            time.sleep(0.01)  # a read may miss a signal that comes just before it waits
    except KeyboardInterrupt:
        pass
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        try:
            for number in range(20):
                assert process.stdout.readline() == f"{number}\n"
                process.send_signal(signal.SIGUSR1)
            assert process.communicate(timeout=PATIENCE_S)[0] == ""
        finally:
            process.kill()
