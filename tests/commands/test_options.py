import os
from pathlib import Path

import pytest

from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.errors import CheckpointError, ConfigError, HSA2CError, NodeError


def raising(error):
    def act():
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("seed = 'x': must be a valid integer"), 2, "prog: seed = 'x': must be a valid integer"),
        (CheckpointError("run a\nb: no such run"), 2, "prog: run a b: no such run"),
        (NodeError("node 3: silent"), 1, "prog: node 3: silent"),
        (HSA2CError("disk full"), 1, "prog: disk full"),
        (KeyboardInterrupt(), 130, "prog: interrupted"),
    ],
)
def test_error_becomes_a_line_and_an_exit_code(capsys, error, code, line):
    assert guarded("prog", raising(error)) == code
    assert capsys.readouterr() == ("", line + "\n")


def test_good_end_and_errors_of_ours_alone():
    assert guarded("prog", lambda: 143) == 143
    with pytest.raises(KeyError):  # a programmer's mistake keeps its traceback
        guarded("prog", raising(KeyError("x")))


def test_complaint_of_the_parser_is_one_line(capsys):
    parser = OneLineParser("prog", "Does things.")
    parser.add_argument("--number", type=int)
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--number", "a\nb"])
    assert end.value.code == 2
    expected = r"prog: argument --number: invalid int value: 'a\nb' (--help shows all options)"
    assert capsys.readouterr() == ("", expected + "\n")
    with pytest.raises(SystemExit):
        parser.parse_args(["a\nb"])
    assert capsys.readouterr().err == "prog: unrecognized arguments: a b (--help shows all options)\n"


def test_options_are_not_guessed_from_their_beginning():
    parser = OneLineParser("prog", "Does things.")
    parser.add_argument("--number", type=int)
    with pytest.raises(SystemExit):
        parser.parse_args(["--num", "3"])


@pytest.mark.parametrize("words", [["--file", "~/x"], ["--file=~/x"], ["~/x"]])
def test_tilde_is_the_home_in_every_path(words, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/mine")
    parser = OneLineParser("prog", "Does things.")
    group = parser.add_argument_group("files")
    group.add_argument("--file", type=Path)
    group.add_argument("run", type=Path, nargs="?")
    options = parser.parse_args(words)
    assert (options.file or options.run) == Path("/home/of/mine/x")


@pytest.mark.parametrize(
    ("words", "who"), [(["--name", b"\xff"], "--name"), ([b"--name=\xff"], "--name"), ([b"\xff"], "argument")]
)
def test_text_that_is_not_utf_8_names_the_option(words, who, capsys):
    parser = OneLineParser("prog", "Does things.")
    parser.add_argument("--name")
    parser.add_argument("run", nargs="?")
    with pytest.raises(SystemExit) as end:
        parser.parse_args([os.fsdecode(word) for word in words])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"prog: {who}: must be UTF-8 text: '")
