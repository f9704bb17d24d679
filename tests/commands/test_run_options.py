"""Options that every application has, and its own between them."""

import dataclasses

import pytest

from hsa2c.application import Application
from hsa2c.commands import run_options
from hsa2c.examples.lda.application import APPLICATION as LDA
from hsa2c.words import CommandWords, Option

WORDS = CommandWords(
    program="mine",
    options=(
        Option(flag="--data", group="what", field="data.source", help="(none)"),
        Option(flag="--twice", group="how", field="model.times", type=int, after="--M", help="(2)"),
        Option(flag="--thrice", group="how", field="model.more", choices=("a", "b"), after="--twice", help="(a)"),
        Option(
            flag="--baseline", group="who", sets={"cluster.nodes": 1, "model.times": 1, "seed": 5}, help="as before"
        ),
        Option(flag="--width", group="how", field="model.width", type=float, help="(1)"),
    ),
    helps={"--name": "what it is called"},
    without=("--lr", "--exchange"),
)


def given(*typed, words=WORDS):
    return run_options.given(words, run_options.parser(words).parse_args([str(word) for word in typed]))


def test_nothing_typed_is_no_field():
    assert given() == {}


def test_own_options_reach_their_fields():
    typed = given("--data", "x", "--twice", 4, "--width", "0.5", "--B", "auto", "--record", "--set", "a.b=[1]")
    assert typed == {
        "data.source": "x",
        "model.times": 4,
        "model.width": 0.5,
        "dpsgd.local_updates": "auto",
        "output.record": True,
        "a.b": [1],
    }


def test_every_other_option_is_stronger_than_one_that_sets_several_fields():
    typed = given("--baseline", "--twice", 4, "--set", "seed=7")
    assert typed == {"cluster.nodes": 1, "model.times": 4, "seed": 7}


def test_help_has_them_in_their_places(capsys):
    with pytest.raises(SystemExit):
        run_options.parser(WORDS).parse_args(["--help"])
    text = capsys.readouterr().out
    lines = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert lines[:2] == ["--data", "--config"]
    how = lines[lines.index("--width") : lines.index("--rho")]
    assert how == ["--width", "--B", "--M", "--twice", "--thrice", "--delta-dtype"]
    assert "what it is called" in text
    assert "mine: error" not in text


@pytest.mark.parametrize(("typed", "line"), [("--lr 1", "unrecognized arguments: --lr 1"), ("--thrice c", "--thrice")])
def test_what_it_has_not_is_refused_in_its_name(capsys, typed, line):
    with pytest.raises(SystemExit) as end:
        given(*typed.split())
    err = capsys.readouterr().err
    assert (end.value.code, err.count("\n"), err.startswith("mine: ")) == (2, 1, True)
    assert line in err


def test_defaults_are_those_of_any_application():
    class Mine(Application):
        name = "mine"

    own = dataclasses.asdict(Mine.command) | {"options": (), "limits": "--minutes"}
    assert own == dataclasses.asdict(CommandWords())
    assert given("--lr", "0.1", words=Mine.command) == {"optimiser.learning_rate": 0.1}
    assert given("--updates", "7", words=Mine.command) == {"stop.updates": 7}


def test_another_application_has_the_same_command_line():
    assert given("--svi", "--batch", 8, words=LDA.command)["model.batch"] == 8
    assert given("--exchange", "synchronous", "--go-on", words=LDA.command) == {"dpsgd.exchange": "synchronous"}
