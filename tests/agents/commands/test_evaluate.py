import itertools
import json

import pytest

from hsa2c.agents.commands import evaluate
from hsa2c.agents.evaluation import summarise

CAP = 400  # frames: a game of Pong ends after 100 agent steps, with a point or two
SHORT = {"env.max_frames": CAP, "env.noop_max": 5}


@pytest.fixture
def run(make_run):
    return make_run("pong", v=True, **SHORT)


def main(*arguments):
    return evaluate.main([str(argument) for argument in arguments])


def json_of(capsys, *arguments):
    """The one JSON object that is printed, on the last line of stdout."""
    assert main(*arguments, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return json.loads(out)


def test_json(run, capsys):
    result = json_of(capsys, run, "--games", 3)
    assert result.keys() >= {"game", "games", "mean", "median", "std", "min", "max", "human_normalised"}
    scores = result["scores"]
    assert (result["game"], result["games"], len(scores)) == ("Pong", 3, 3)
    assert result["mean"] == pytest.approx(sum(scores) / 3)
    assert (result["min"], result["max"], result["median"]) == (min(scores), max(scores), sorted(scores)[1])
    assert all(score == int(score) and -21 <= score <= 21 for score in scores)
    assert (result["capped"], result["agent_steps"]) == (3, 3 * CAP / 4)
    # Random play of Pong is -20.7, a human's 14.6 (Wang et al. 2016).
    assert result["human_normalised"] == pytest.approx(100 * (result["mean"] + 20.7) / (14.6 + 20.7))
    assert result["checkpoint"] == str(run / "checkpoints" / "step-000000010.safetensors")
    assert result["trained_agent_steps"] == 200
    assert "3 games, 3 of them cut off by the cap, raw score, up to 5 no-ops" in result["protocol"]
    assert "sampled actions, 400-frame cap, seed 1000" in result["protocol"]


@pytest.mark.slow
def test_same_seed_same_scores_and_options_reach_the_protocol(run, capsys):
    first, again = (json_of(capsys, run, "--games", 2) for _ in range(2))
    first.pop("seconds")
    again.pop("seconds")
    assert first == again
    protocol = json_of(capsys, run, "--games", 1, "--greedy", "--sticky", 0.25, "--seed", 7)["protocol"]
    assert protocol.startswith("1 game, 1 of them cut off by the cap, ")
    assert "sticky actions 0.25, greedy actions" in protocol
    assert protocol.endswith("seed 7")


@pytest.mark.parametrize("columns", ["10", "80"])
def test_lines_hold_every_number_whatever_the_width(run, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    scores = summarise([-17_624.5, 1_234_567.25], agent_steps=9, capped=1)
    monkeypatch.setattr("hsa2c.agents.evaluation.evaluate", lambda *_, **__: scores)
    assert main(run, "--games", 2) == 0
    out, err = capsys.readouterr()
    told = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert told["game"] == "Pong"
    assert (told["mean"], told["median"], told["std"]) == ("608,471.4", "608,471.4", "885,433.3")
    assert (told["min"], told["max"]) == ("-17,624.5", "1,234,567.2")
    assert told["human-normalised"] == "1,723,773.6 %"
    assert told["protocol"].startswith("2 games, 1 of them cut off by the cap, raw score")
    assert told["checkpoint"].endswith("step-000000010.safetensors (200 agent steps of training)")
    assert err == ""


def test_progress_without_a_terminal_also_within_a_game(run, capsys, monkeypatch):
    times = itertools.count(0.0, 0.5)  # a look at the clock takes half a second
    monkeypatch.setattr(evaluate.time, "monotonic", lambda: next(times))
    assert main(run, "--games", 1) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3  # in 100 agent steps
    assert lines[0].startswith("Pong: 0 of 1 games have ended, ")
    told = [int(line.split(", ")[1].split()[0]) for line in lines]
    assert told == sorted(set(told))


def test_which_checkpoint_plays(make_run, capsys, monkeypatch):
    monkeypatch.setattr("hsa2c.agents.evaluation.evaluate", lambda *_, **__: summarise([1.0], agent_steps=9, capped=0))
    run = make_run("both", v=True, best=True, t=3, **SHORT)
    folder = run / "checkpoints"
    step, best = folder / "step-000000003.safetensors", folder / "best.safetensors"
    for arguments, path in [
        ([run], best),
        ([run, "--best"], best),
        ([run, "--newest"], step),
        ([folder], best),
        ([step], step),
        ([step, "--best"], step),
    ]:
        assert json_of(capsys, *arguments, "--games", 1)["checkpoint"] == str(path), arguments


@pytest.mark.slow
def test_video(run, capsys, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    result = json_of(capsys, run, "--games", 1, "--video", tmp_path / "game.gif")
    assert result["video"] == {"file": str(tmp_path / "game.gif"), "score": result["video"]["score"]}
    assert (tmp_path / "game.gif").read_bytes().startswith(b"GIF8")


def test_wrong_target(refused, tmp_path, make_run):
    assert refused(evaluate.main, tmp_path / "none").endswith(
        "none: no such run or checkpoint: No such file or directory"
    )
    assert refused(evaluate.main, tmp_path).endswith("holds no checkpoint (step-*.safetensors)")
    (tmp_path / "file").write_text("not a checkpoint at all")
    assert "damaged" in refused(evaluate.main, tmp_path / "file")
    run = make_run()
    assert (
        refused(evaluate.main, run, "--best") == f"evaluate.py: {run}: has no best checkpoint yet (it takes 100 games)"
    )


def test_checkpoint_of_something_else(refused, make_run):
    run = make_run("lda", identity={"application": "lda"})
    assert refused(evaluate.main, run).endswith("is of 'lda', not of an Atari agent")
    run = make_run("other", identity={"network": "mnih2015"})
    line = refused(evaluate.main, run, "--games", 1)
    assert line.endswith("the checkpoint has the network 'mnih2015', the game needs 'mnih2013-background-4x84x84-6'")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--games 0", "evaluate.py: games = 0: must be greater than or equal to 1"),
        ("--games x", "evaluate.py: argument --games: invalid int value: 'x' (--help shows all options)"),
        ("--sticky 2", "evaluate.py: sticky_actions = 2.0: must be less than or equal to 1"),
        ("--sticky nan", "evaluate.py: sticky_actions = nan: must be a finite number"),
        ("--seed -1", "evaluate.py: seed = -1: must be greater than or equal to 0"),
        (
            "--best --newest",
            "evaluate.py: argument --newest: not allowed with argument --best (--help shows all options)",
        ),
        ("--video game.avi", "evaluate.py: video = 'game.avi': must end in .mp4 or .gif"),
    ],
)
def test_bad_option(refused, make_run, arguments, line):
    assert refused(evaluate.main, make_run(), *arguments.split()) == line


def test_interrupted(run, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hsa2c.agents.evaluation.evaluate", interrupted)
    assert main(run, "--games", 1) == 130
    assert capsys.readouterr().err == "evaluate.py: interrupted\n"
