"""`hsa2c push`, and what reads its folders: measured, whole, without this machine's names or a stranger's code."""

import dataclasses
import importlib.util
import json
import shutil
import sys
import types
import warnings

import gymnasium
import numpy as np
import pytest
import yaml

import hsa2c
from hsa2c.agents.gym import evaluate as evaluate_gym
from hsa2c.agents.gym.application import APPLICATION
from hsa2c.cluster.world import World
from hsa2c.commands import evaluate, export, push
from hsa2c.commands.choice import choose
from hsa2c.config.loading import to_dict
from hsa2c.run import begin
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint import Checkpoint
from hsa2c.run.directory import application_of
from tests.agents.gym.scripted import Scripted
from tests.processes import REPOSITORY

GYM = "hsa2c.agents.gym.application"
FILMED = "tests.agents.gym.filmed:Filmed"
needs_video = pytest.mark.skipif(importlib.util.find_spec("imageio_ffmpeg") is None, reason="needs hsa2c[video]")


def make_run(folder, env="Scripted-v0", name="run", rows=()):
    """A run's directory with an untrained checkpoint."""
    given = {"output.run_dir": str(folder), "output.name": name, "env.id": env}
    run = begin.prepare(APPLICATION, given, None, World(0, 1, started_by_mpi=False))
    run.application = GYM
    with run.open():
        pass
    v = APPLICATION.initial(run.config)
    checkpoint = Checkpoint(
        v=v,
        momentum=np.ones_like(v),
        optimiser_states=(),
        t=10,
        counters={"agent_steps": 200, "elapsed_s": 90.0},
        config=to_dict(run.config),
        identity=APPLICATION.identity(run.config),
    )
    checkpoints.save(run.directory / "checkpoints", checkpoint, keep=3)
    if rows:
        text = "".join(json.dumps({"time": 0.0, "session": 1} | row) + "\n" for row in rows)
        (run.directory / "metrics.jsonl").write_text(text)
    return run.directory


def pushed(run, folder, *more):
    assert push.main([str(run), str(folder), "--games", "2", *map(str, more)], app=GYM) == 0
    return folder


@pytest.fixture(autouse=True)
def scripted():
    """An id of Gymnasium's that needs no code of a user's; it cannot be drawn."""
    gymnasium.register("Scripted-v0", entry_point=Scripted)
    yield
    del gymnasium.registry["Scripted-v0"]


def front(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@needs_video
def test_a_folder_has_what_the_hub_shows(tmp_path, capsys):
    rows = [{"elapsed_s": k, "step": k, "agent_steps": k, "score/mean_100": k} for k in (1.0, 2.0)]
    folder = pushed(make_run(tmp_path, FILMED, rows=rows), tmp_path / "new" / "shared")
    assert capsys.readouterr() == (f"{folder}\n", "")
    files = ["README.md", "best.safetensors", "config.yaml", "curves.png", "replay.mp4", "results.json"]
    assert sorted(path.name for path in folder.iterdir()) == files
    card = front(folder)
    assert card["library_name"] == "hsa2c"
    assert {"reinforcement-learning", FILMED} <= set(card["tags"])
    result = card["model-index"][0]["results"][0]
    assert result["task"]["type"] == "reinforcement-learning"
    assert result["dataset"] == {"name": FILMED, "type": FILMED}
    assert result["metrics"][0]["type"] == "mean_reward"
    assert result["metrics"][0]["value"] == "6.00 +/- 0.00"
    found = json.loads((folder / "results.json").read_text())
    assert found["scores"] == [6.0, 6.0]
    assert found["video"] == {"file": "replay.mp4", "score": 6.0}
    text = (folder / "README.md").read_text()
    assert "2 whole episodes, sums of rewards, sampled actions, seeds 1000 to 1001" in text
    assert f"needs `{FILMED}`" in text
    whole = checkpoints.load(folder / "best.safetensors")
    assert (whole.t, whole.momentum.any()) == (10, False)
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in folder.iterdir())


def test_a_pushed_agent_acts_and_is_evaluated_as_its_run(tmp_path, capsys):
    run = make_run(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without a film
        folder = hsa2c.Run(run).push(tmp_path / "shared", games=2, greedy=True, seed=7)
    assert application_of(folder) == application_of(folder / "best.safetensors") == GYM
    again = hsa2c.evaluate(folder, games=2, greedy=True, seed=7)
    assert again["scores"] == json.loads((folder / "results.json").read_text())["scores"]
    observation = np.float32([0, 0.1, -0.1])
    assert hsa2c.load(folder, greedy=True)(observation) == hsa2c.load(run, greedy=True)(observation)
    capsys.readouterr()
    assert evaluate_gym.main([str(folder), "--games", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["environment"] == "Scripted-v0"


def test_an_environment_that_cannot_be_drawn_has_a_card_without_a_film(tmp_path, capsys):
    folder = pushed(make_run(tmp_path), tmp_path / "shared")
    assert capsys.readouterr().err.startswith("hsa2c push: without replay.mp4: video = 'replay.mp4': the environment")
    assert not (folder / "replay.mp4").exists()
    assert "film" not in (folder / "README.md").read_text()


def test_older_files_are_replaced_with_a_word_and_others_are_left(tmp_path, capsys):
    run, folder = make_run(tmp_path), tmp_path / "shared"
    (folder / ".git").mkdir(parents=True)  # an empty clone
    pushed(run, folder)
    assert "replaced" not in capsys.readouterr().err
    (folder / "replay.mp4").write_text("of an older push")
    (folder / "notes.txt").write_text("mine")
    pushed(run, folder)
    assert f"hsa2c push: {folder}: older files were replaced" in capsys.readouterr().err
    assert not (folder / "replay.mp4").exists()
    assert {".git", "notes.txt", "README.md"} <= {path.name for path in folder.iterdir()}
    with pytest.warns(UserWarning, match=r"older files were replaced|without replay\.mp4"):
        hsa2c.Run(run).push(folder, games=1)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("others", "must be new, empty, or a folder that push has written; it has README.md"),
        ("file", "Not a directory"),
        ("beneath", "Not a directory"),
        ("run", "must be new, empty"),
    ],
)
def test_a_place_that_is_anothers_is_refused_before_measuring(kind, said, tmp_path, refused, monkeypatch):
    run = make_run(tmp_path)
    place = {"run": run, "beneath": tmp_path / "x" / "y"}.get(kind, tmp_path / "x")
    if kind == "others":
        place.mkdir()
        (place / "README.md").write_text("---\nlibrary_name: stable-baselines3\n---\n")
    elif kind != "run":
        (tmp_path / "x").touch()
    monkeypatch.setattr(type(APPLICATION), "evaluate", None)
    assert said in refused(lambda words: push.main(words, app=GYM), run, place)


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign", "other application", "no folder"])
def test_damaged_and_foreign_folders_are_one_line(damage, tmp_path, refused, capsys):
    folder = tmp_path / "shared"
    if damage != "no folder":
        pushed(make_run(tmp_path), folder)
        file = folder / "best.safetensors"
        if damage == "missing":
            file.unlink()
        elif damage == "cut":
            file.write_bytes(file.read_bytes()[:-9])
        elif damage == "foreign":
            file.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
        else:
            shutil.copy(REPOSITORY / "checkpoints" / "pong" / "best.safetensors", file)
    capsys.readouterr()
    for main, more in ((evaluate_gym.main, []), (export.main, [tmp_path / "p.pt"]), (push.main, [tmp_path / "again"])):
        how = {} if main is evaluate_gym.main else {"app": GYM}
        assert str(folder) in refused(lambda words, main=main, how=how: main(words, **how), folder, *more)
    if damage != "other application":
        with pytest.raises(hsa2c.CheckpointError, match=str(folder)):
            hsa2c.load(folder)


def named(folder, **env):
    """A folder whose checkpoint is as a stranger may write it."""
    whole = checkpoints.load(folder / "best.safetensors")
    config = {**whole.config, "env": {**whole.config["env"], **env}}
    identity = {**whole.identity, "environment": env["id"]}
    checkpoints.save_best(folder, dataclasses.replace(whole, config=config, identity=identity))


STRANGE = [
    {"id": "evil:make_env"},
    {"id": "evil:Evil-v0"},
    {"id": "evil.py:make_env"},
    {"id": "os:system", "options": {"command": "touch executed"}},
]


@pytest.mark.parametrize("env", STRANGE, ids=lambda env: env["id"])
def test_a_strangers_folder_executes_nothing(env, tmp_path, monkeypatch, refused, capsys):
    folder = pushed(make_run(tmp_path), tmp_path / "shared")
    named(folder, **env)
    (folder / "evil.py").write_text('import pathlib\npathlib.Path("executed").touch()\n')
    (folder / "about.yaml").write_text("application: evil\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    capsys.readouterr()
    assert choose("hsa2c evaluate", ["."])[0] == GYM
    for target in (".", "best.safetensors"):
        assert f"needs the code {env['id']}" in refused(evaluate_gym.main, target)
        assert "--trust-code" in refused(lambda words: export.main(words, app=GYM), target, "p.pt")
        assert "--trust-code" in refused(lambda words: push.main(words, app=GYM), target, "again")
        for call in (hsa2c.load, hsa2c.evaluate):
            with pytest.raises(hsa2c.CheckpointError, match="trust_code=True"):
                call(target)
    assert not (folder / "executed").exists()
    assert "evil" not in sys.modules


def test_who_agrees_has_the_code_imported(tmp_path, capsys):
    folder = pushed(make_run(tmp_path, FILMED), tmp_path / "shared")
    assert hsa2c.load(folder, trust_code=True)(np.float32([1, 2, 3])) in (0, 1)
    assert hsa2c.evaluate(folder, games=1, trust_code=True)["scores"] == [6.0]
    assert evaluate_gym.main([str(folder), "--games", "1", "--trust-code"]) == 0
    pushed(folder, tmp_path / "again", "--trust-code")


def test_what_a_script_has_is_called_by_its_module(tmp_path, monkeypatch):
    script = tmp_path / "own_filmed.py"
    script.write_text(
        "from tests.agents.gym.filmed import Filmed\n\n\ndef make_env(**how):\n    return Filmed(**how)\n"
    )
    folder = pushed(make_run(tmp_path, f"{script}:make_env"), tmp_path / "shared")
    assert "needs `own_filmed:make_env`" in (folder / "README.md").read_text()
    assert front(folder)["tags"][0] == "own_filmed:make_env"
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in folder.iterdir())
    monkeypatch.chdir(tmp_path)
    assert hsa2c.evaluate(folder, games=1, trust_code=True)["environment"] == "own_filmed:make_env"


def test_an_application_without_a_card_says_so(tmp_path, refused):
    from tests.api import problems

    run = problems.minimise(tmp_path, problems.MODEL)
    said = refused(lambda words: push.main(words, app="hsa2c.minimising.application"), run.dir, tmp_path / "shared")
    assert said.endswith("application minimise: has no model card")


class Hub(types.ModuleType):
    """`huggingface_hub`, without a network: it has what was asked of it."""

    def __init__(self, folder=None):
        super().__init__("huggingface_hub")
        self.folder, self.asked = folder, []

    def HfApi(self):
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        self.asked.append((repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, delete_patterns):
        self.asked.append((repo_id, folder_path, allow_patterns))
        if repo_id == "user/refused":
            raise OSError("403 Forbidden\nfor this token")

    def hf_hub_download(self, *, repo_id, filename):
        if self.folder is None:
            raise ValueError(f"404: no {repo_id}")
        return str(self.folder / filename)


@pytest.fixture
def hub(monkeypatch):
    found = Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", found)
    return found


def test_nothing_is_sent_unless_it_is_asked_for(tmp_path, hub, capsys):
    run, folder = make_run(tmp_path), tmp_path / "shared"
    pushed(run, folder)
    assert hub.asked == []
    capsys.readouterr()
    pushed(run, folder, "--to-hub", "user/name", "--private")
    assert capsys.readouterr().out == f"{folder}\nhttps://huggingface.co/user/name\n"
    assert hub.asked[0] == ("user/name", True, True)
    assert hub.asked[1][:2] == ("user/name", str(folder))
    assert {path.name for path in folder.iterdir()} <= set(hub.asked[1][2])
    hub.asked.clear()
    with pytest.warns(UserWarning, match=r"replaced|without replay\.mp4"):
        hsa2c.Run(run).push(folder, to_hub="user/name", games=1)
    assert len(hub.asked) == 2


def test_a_hub_that_refuses_is_one_line_and_the_folder_stays(tmp_path, hub, capsys):
    words = [str(make_run(tmp_path)), str(tmp_path / "shared"), "--games", "1", "--to-hub", "user/refused"]
    assert push.main(words, app=GYM) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"hsa2c push: --to-hub user/refused: OSError: 403 Forbidden for this token; {tmp_path / 'shared'} is written"
    )
    assert (tmp_path / "shared" / "README.md").exists()


@pytest.mark.parametrize(("name", "said"), [("name", "must be user/name"), ("user/name", r"pip install 'hsa2c[hub]'")])
def test_what_cannot_be_sent_is_known_before_measuring(name, said, tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    run = make_run(tmp_path)
    assert said in refused(lambda words: push.main(words, app=GYM), run, tmp_path / "shared", "--to-hub", name)


def test_a_repository_is_fetched_by_its_name_and_trusted_no_more_than_a_folder(tmp_path, hub):
    hub.folder = pushed(make_run(tmp_path), tmp_path / "shared")
    assert hsa2c.load("hf:user/name")(np.zeros(3, np.float32)) in (0, 1)
    named(hub.folder, **STRANGE[0])
    with pytest.raises(hsa2c.CheckpointError, match="needs the code"):
        hsa2c.load("hf:user/name")
    hub.folder = None
    with pytest.raises(hsa2c.HSA2CError, match="hf:user/name: cannot be fetched: ValueError: 404: no user/name"):
        hsa2c.evaluate("hf:user/name")
    with pytest.raises(hsa2c.ConfigError, match="hf: 'user': must be user/name"):
        hsa2c.load("hf:user")


def test_options_are_those_of_the_application(tmp_path):
    with pytest.raises(hsa2c.ConfigError, match="push: sticky = 1: no such option; it takes games, greedy, seed"):
        hsa2c.Run(make_run(tmp_path)).push(tmp_path / "shared", sticky=1)


@pytest.mark.slow
def test_an_agent_of_atari_has_a_card(tmp_path, capsys):
    folder = tmp_path / "invaders"
    assert push.main([str(REPOSITORY / "checkpoints" / "spaceinvaders"), str(folder), "--games", "1"]) == 0
    result = front(folder)["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "SpaceInvadersNoFrameskip-v4"
    assert float(result["metrics"][0]["value"].split()[0]) > 100
    assert "sticky actions 0, sampled actions" in (folder / "README.md").read_text()
    capsys.readouterr()
    assert evaluate.main([str(folder), "--games", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scores"] == json.loads((folder / "results.json").read_text())["scores"]
