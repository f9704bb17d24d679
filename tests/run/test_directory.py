import json
import subprocess
import sys

import pytest
import yaml

from hsa2c.agents.application import APPLICATION
from hsa2c.config.loading import read_yaml
from hsa2c.errors import ConfigError
from hsa2c.run import begin
from hsa2c.run import directory as rundir
from tests.processes import REPOSITORY
from tests.run.runs import ALONE, events, resume


def test_preparing_writes_nothing_and_opening_writes_what_runs(prepare, tmp_path):
    run = prepare(output__name="mine", game="space-invaders")
    assert list(tmp_path.iterdir()) == []
    with run.open():
        assert {path.name for path in run.directory.iterdir()} == {
            ".lock",
            "asked.yaml",
            "about.yaml",
            "config.yaml",
            "journal.jsonl",
        }
    assert APPLICATION.build_config(read_yaml(run.directory / "config.yaml")) == run.config
    assert run.config.game == "SpaceInvaders"
    about = yaml.safe_load((run.directory / "about.yaml").read_text())
    assert {"command", "host", "cores", "packages", "commit"} <= about.keys()


def test_run_that_comes_to_exist_meanwhile_is_left_alone(prepare):
    first, second = prepare(output__name="mine"), prepare(output__name="mine", seed=2)
    with first.open():
        pass
    with pytest.raises(ConfigError, match="exists"):
        second.open()
    assert read_yaml(first.directory / "config.yaml")["seed"] == 1


@pytest.mark.parametrize("again", [False, True])
def test_what_lies_in_a_runs_place_is_named(tmp_path, again):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for name, rule in {"link": "is a link to .*nowhere, which does not exist", "file": "is not a folder"}.items():
        given = {"output.run_dir": str(tmp_path), "output.name": name}
        with pytest.raises(ConfigError, match=rf"{name}: {rule}"):
            begin.prepare(APPLICATION, given, "smoke", ALONE, again=again).open()
        with pytest.raises(ConfigError, match=rf"{name}: {rule}" if name == "link" else "cannot be written"):
            begin.prepare(APPLICATION, given | {"output.run_dir": str(tmp_path / name)}, "smoke", ALONE).open()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_folder_that_cannot_be_written(prepare, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written: Not a directory$"):
        prepare(output__run_dir=str(tmp_path / "file")).open()


# One process at a time


def test_second_process_is_refused(make_run):
    directory = make_run()
    code = f"""
import sys
from pathlib import Path
from hsa2c.agents.application import APPLICATION
from hsa2c.errors import ConfigError
from hsa2c.run import begin
from hsa2c.cluster.world import ALONE
try:
    run = begin.resume(APPLICATION, Path({str(directory)!r}), {{}}, None, ALONE).open()
except ConfigError as error:
    sys.exit(str(error))
print("opened", flush=True)
sys.stdin.read()
"""

    def start():
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with resume(directory).open():
        refused = start().communicate(timeout=100)
        assert refused == ("", f"{directory}: another process is training in it\n")
        assert events(directory, "resume")[1:] == [], "the second one wrote nothing"
    with start() as other:
        try:
            assert other.stdout.readline() == "opened\n"
            with pytest.raises(ConfigError, match=r"another process is training in it$"):
                resume(directory).open()
        finally:
            other.kill()
    with resume(directory).open():
        pass


# A start that comes to nothing


def interrupted_in(run):
    with pytest.raises(KeyboardInterrupt), run.open():
        assert run.directory.exists()
        raise KeyboardInterrupt


def test_start_that_is_interrupted_removes_what_it_has_made(prepare):
    run = prepare(output__name="new")
    interrupted_in(run)
    assert not run.directory.exists()
    run = prepare(output__name="rows")
    with pytest.raises(KeyboardInterrupt), run.open():
        (run.directory / "metrics.jsonl").write_text('{"step": 1}\n')
        raise KeyboardInterrupt
    assert run.directory.exists(), "something was trained"


def test_start_that_is_interrupted_keeps_what_was_there(make_run, tmp_path):
    directory = make_run()
    interrupted_in(resume(directory))
    assert rundir.has_checkpoint(directory)
    queued = tmp_path / "queued"
    queued.mkdir()
    given = {"output.run_dir": str(tmp_path), "output.name": "queued"}
    interrupted_in(begin.prepare(APPLICATION, given, None, ALONE, again=True))
    assert queued.exists(), "it has the batch job's file, perhaps"


def test_start_that_cannot_write_leaves_nothing(prepare, monkeypatch):
    run = prepare(output__name="full")
    monkeypatch.setattr(rundir, "about", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ConfigError, match="No space left on device"):
        run.open()
    assert not run.directory.exists()


# What a run came to


def test_summary_is_of_the_last_row_and_stop(tmp_path):
    rows = [
        {"step": 5, "elapsed_s": 1.0, "agent_steps": 5, "games": 1, "score/mean_100": -20.0},
        {"step": 9, "elapsed_s": 2.0, "agent_steps": 9, "games": 2, "score/mean_100": -19.0},
        {"step": 9},
    ]
    stops = [{"kind": "stop", "message": "old"}, {"kind": "stop", "message": "9 agent steps", "checkpoint": "c"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stops))
    assert rundir.summary(APPLICATION, tmp_path, 0) == {
        "run": str(tmp_path),
        "exit_code": 0,
        "reason": "9 agent steps",
        "checkpoint": "c",
        "elapsed_s": 2.0,
        "agent_steps": 9,
        "updates": None,
        "games": 2,
        "exchanges": None,
        "global_steps": None,
        "mean_score": -19.0,
        "best_mean_score": None,
        "evaluated_score": None,
        "best_evaluated_score": None,
    }


def test_summary_of_a_run_that_never_began(tmp_path):
    summary = rundir.summary(APPLICATION, tmp_path, 1)
    assert (summary["exit_code"], summary["reason"], summary["agent_steps"]) == (1, None, None)
