"""What `bench.gym` keeps of its runs, and draws."""

import json

import numpy as np
import pytest

from bench import gym
from bench.gym_curves import draw, over_seeds


def result(**other):
    curve = [[1000, 2.0, 10.0], [2000, 4.0, 30.0]]
    found = {"reached_s": 3.0, "steps": 2000, "seconds": 4.0, "score": 30.0, "curve": curve}
    return {"env": "E-v0", "seed": 1, "system": "hsa2c", "until": 20.0, "minutes": 1.0, "limit": 10, **found, **other}


def test_a_line_that_was_cut_is_done_again(tmp_path):
    out = tmp_path / "kept" / "runs.jsonl"
    gym.keep(out, result())
    out.write_text(out.read_text() + json.dumps(result(seed=2))[:-9])
    assert [run["seed"] for run in gym.read(out).values()] == [1]
    gym.keep(out, result(seed=3))
    assert list(gym.read(out).values()) == [result(), result(seed=3)]


def test_a_second_call_goes_on_where_the_first_stopped(tmp_path, monkeypatch, capsys):
    out, done = tmp_path / "runs.jsonl", []

    def ours(env, seed, until, minutes, limit):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(seed)
        return {key: result()[key] for key in ("reached_s", "steps", "seconds", "score", "curve")}

    monkeypatch.setattr(gym, "ours", ours)
    call = ["--envs", "CartPole-v1", "--systems", "hsa2c", "--seeds", "1", "2", "3", "--json", "--out", str(out)]
    with pytest.raises(KeyboardInterrupt):
        gym.main(call)
    done.clear()
    assert gym.main(call) == 0
    assert done == [3]
    assert [run["seed"] for run in json.loads(capsys.readouterr().out)["runs"]] == [1, 2, 3]
    gym.main([*call, "--minutes", "2", "--seeds", "1"])  # another limit is another run
    assert done == [3, 1]


def test_curves_are_compared_at_the_same_points():
    x, scores = over_seeds([np.array([0.0, 10.0]), np.array([5.0, 20.0])], [np.array([0.0, 1.0]), np.array([0.0, 3.0])])
    assert (x[0], x[-1]) == (5, 20)
    assert scores[:, 0].tolist() == [0.5, 0]
    assert scores[:, -1].tolist() == [1, 3]


def test_a_picture_of_all_systems(tmp_path):
    draw([result(), result(seed=2), result(system="ppo", curve=[])], tmp_path / "curves.svg")
    assert "<svg" in (tmp_path / "curves.svg").read_text()
