"""``hsa2c COMMAND --app MODULE``: which application a command serves, by what was typed, or by the run."""

import importlib
import json
import sys

import pytest
import yaml

from hsa2c.commands import choice, entry, plot, report, train
from hsa2c.run.directory import application_of

ATARI, LDA = "hsa2c.agents.application", "hsa2c.examples.lda.application"


def write_run(folder, module):
    """A directory of a run with one row."""
    folder.mkdir()
    (folder / "about.yaml").write_text(yaml.safe_dump({"application": module}))
    (folder / "config.yaml").write_text("{}\n")
    row = {"time": 1.0, "step": 5, "elapsed_s": 60.0, "session": 1, "speed/agent_steps_per_s": 2.0}
    (folder / "metrics.jsonl").write_text(json.dumps(row | {"perplexity/validation": 500.0}) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    return {name: write_run(tmp_path / name, name) for name in (ATARI, LDA)}


def choose(*arguments):
    return choice.choose("hsa2c plot", [str(argument) for argument in arguments])


@pytest.mark.parametrize("module", [LDA, "hsa2c.examples.lda"])
def test_it_is_taken_out_wherever_it_stands(module):
    assert choose("--app", module, "--topics", "3") == (LDA, ["--topics", "3"])
    assert choose("--topics", "3", f"--app={module}", "-o", "x") == (LDA, ["--topics", "3", "-o", "x"])


def test_without_it_the_run_says(runs):
    assert choose(runs[LDA]) == (LDA, [str(runs[LDA])])
    assert choose("--topics", "3", f"--resume={runs[LDA]}")[0] == LDA
    assert choose(runs[LDA] / "metrics.jsonl", runs[LDA])[0] == LDA
    assert choose("--app", LDA, runs[LDA])[0] == LDA
    assert choose("--app", "agents.application", runs[ATARI])[0] == "agents.application", "as it was called before"
    assert choose("--nosuch", "3")[0] == choose()[0] == ATARI


def refuses(refused, *arguments):
    return refused(lambda typed: choice.choose("hsa2c plot", typed), *arguments)


def test_a_run_of_another_is_refused(refused, runs):
    line = f"hsa2c plot: {runs[LDA]}: is a run of {LDA}, not of {ATARI}"
    assert refuses(refused, "--app", "hsa2c.agents", runs[LDA]) == line
    several = refuses(refused, *runs.values())
    assert several.startswith("hsa2c plot: runs must be of one application: ")
    assert f"{runs[ATARI]} of {ATARI}" in several
    assert refused(train.main, "--resume", runs[LDA]).startswith(f"train.py: {runs[LDA]}: is a run of {LDA}")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--app no_such", "application: no module no_such is installed, or in the current directory"),
        ("--app hsa2c.errors", "application hsa2c.errors: the module has no APPLICATION"),
        ("--app hsa2c.examples", "application hsa2c.examples: the module has no APPLICATION"),
        ("--app ../x", "application '../x': must be the name of a module"),
        ("RUN --app", "argument --app: expected one argument (--help shows all options)"),
    ],
)
def test_what_is_no_application_is_refused(refused, arguments, line):
    assert refuses(refused, *arguments.split()) == f"hsa2c plot: {line}"


def test_a_run_of_a_module_that_has_gone_is_refused(refused, tmp_path):
    gone = write_run(tmp_path / "gone", "no_such.application")
    assert "application: no module no_such.application is" in refuses(refused, gone)


def test_plots_and_pages_have_the_words_of_the_run(runs, tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(plot, "plot", lambda *_, **how: drawn.append(how["step_name"]))
    for name, run in runs.items():
        tag = "perplexity/validation" if name == LDA else "speed/agent_steps_per_s"
        arguments = [str(run), "-o", str(tmp_path / "x.png"), "--tags", tag]
        assert entry.enter("hsa2c plot", "hsa2c.commands.plot", arguments, chooses=True) == 0
    assert drawn == ["agent steps", "documents"]
    monkeypatch.setattr(report, "write", lambda run, output, words: drawn.append(words.unit))
    assert entry.enter("hsa2c report", "hsa2c.commands.report", [str(runs[LDA])], chooses=True) == 0
    assert drawn[2:] == ["documents"]


@pytest.mark.parametrize("command", ["train", "evaluate", "export", "doctor", "plot", "report", "replay"])
@pytest.mark.parametrize("app", [ATARI, LDA])
def test_help_shows_it(command, app, capsys):
    with pytest.raises(SystemExit) as end:
        sys.exit(entry_without_fork(command, "--app", app, "--help"))
    assert not end.value.code
    shown = capsys.readouterr().out
    assert "--app MODULE" in shown
    assert shown.startswith(f"usage: hsa2c {command} ")


def entry_without_fork(command, *arguments):
    """As `hsa2c.commands.entry` does it; ``evaluate`` would go on as a child process there."""
    app, rest = choice.choose(f"hsa2c {command}", arguments)
    return importlib.import_module(f"hsa2c.commands.{command}").main(rest, app=app, prog=f"hsa2c {command}")


def test_a_batch_job_trains_the_same_application(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert entry_without_fork("train", "--app", LDA, "--documents", "9", "--name", "a", "--slurm", "time=1") == 0
    assert f"-m hsa2c train --app {LDA} --documents 9" in capsys.readouterr().out


def test_a_run_says_which_application_it_is_of(make_run, tmp_path):
    run = make_run()
    assert application_of(run) == ATARI, "as 0.1 left it: by the checkpoint"
    checkpoint = next((run / "checkpoints").iterdir())
    alone = checkpoint.rename(tmp_path / "alone.safetensors")
    assert application_of(alone) == ATARI
    assert application_of(run) is None
    (run / "about-2.yaml").write_text(f"application: {LDA}\n")
    for path in (run, run / "metrics.jsonl", run / "checkpoints"):
        assert application_of(path) == (LDA if path.exists() else None)
    assert application_of(tmp_path / "no" / "such") is application_of(tmp_path) is None


def test_an_lda_run_of_0_1_is_known_by_its_checkpoint(make_run):
    assert application_of(make_run(identity={"application": "lda"})) == LDA
