"""The study against real, very short runs: what is finished is kept, what is not goes on."""

import json
from pathlib import Path

import pytest

from bench import scaling_study

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def study(short, capfd):
    def study(*arguments):
        code = scaling_study.main(["--nodes", "1", "--p", "1", "--B", "1", "2", *short, *arguments])
        return code, json.loads(capfd.readouterr().out)

    return study


@pytest.mark.slow
def test_goes_on_where_it_was_stopped(study, monkeypatch):
    code, first = study("--agent-steps", "1600")
    assert code == 0
    assert [(run["nodes"], run["p"], run["B"]) for run in first["runs"]] == [(1, 1, 1), (1, 1, 2)]
    for run in first["runs"]:
        assert 1600 <= run["agent_steps"] <= 1600 + 40 * run["B"]
        assert run["exchanges"] >= 1600 // (40 * run["B"])
        assert run["seconds_to_score"] is None
    assert all(Path(picture).stat().st_size > 10_000 for picture in first["pictures"])

    started = []
    train = scaling_study.train
    monkeypatch.setattr(scaling_study, "train", lambda options: (started.append(options[0]), train(options)))
    assert study("--agent-steps", "1600")[1]["runs"] == first["runs"]
    assert started == []

    _, longer = study("--agent-steps", "3200", "--B", "1")
    assert started == ["--resume"]
    assert longer["runs"][0]["agent_steps"] >= 3200
    assert longer["runs"][0]["seconds"] > first["runs"][0]["seconds"]

    assert study("--agent-steps", "1600", "--B", "1")[1]["runs"] == first["runs"][:1]  # judged by the same budget
