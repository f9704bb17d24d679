import importlib
import sys
import warnings

import ale_py
import numpy as np
import pytest

from hsa2c.agents.evaluation import evaluate
from hsa2c.envs import film, video
from hsa2c.envs.atari import AtariEnvs
from hsa2c.envs.names import resolve_game
from hsa2c.envs.settings import EnvConfig
from hsa2c.errors import ConfigError, HSA2CError
from tests.policies import random_policy

FREEWAY = resolve_game("freeway")
CONFIG = EnvConfig(max_frames=122, sticky_actions=0.25)
AGENT_STEPS = 31


def read(path):
    """Every image of a video, and its images/s."""
    ffmpeg = importlib.import_module("imageio_ffmpeg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # imageio_ffmpeg's reader leaves its pipes to the collector
        reader = ffmpeg.read_frames(str(path))
        meta = next(reader)
        width, height = meta["size"]
        images = [np.frombuffer(raw, np.uint8).reshape(height, width, 3) for raw in reader]
        del reader
    return images, meta["fps"]


def screens(seed, policy):
    """The colours of the same game by ALE's plain interface, pooled over each agent step's last two frames."""
    with AtariEnvs(FREEWAY, CONFIG, 1, seed=seed) as envs:
        envs.reset()
        start_frame = int(envs.start_frame[0])
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", CONFIG.sticky_actions)
    ale.setInt("random_seed", seed)
    ale.loadROM(ale_py.roms.get_rom_path(FREEWAY.rom))
    ale.reset_game()
    for _ in range(start_frame):
        ale.act(ale_py.Action.NOOP)
    yield ale.getScreenRGB()
    actions = ale.getMinimalActionSet()
    for _ in range(AGENT_STEPS - 1):
        action = actions[policy(np.zeros((1, 4, 84, 84), np.uint8))[0]]
        frames = []
        for _ in range(4):
            ale.act(action)
            frames.append(ale.getScreenRGB())
        yield np.maximum(frames[2], frames[3])


@pytest.mark.parametrize(("suffix", "mean_error"), [pytest.param(".mp4", 1, marks=pytest.mark.slow), (".gif", 0)])
def test_a_video_shows_the_evaluated_game_in_true_colours(tmp_path, suffix, mean_error):
    path = tmp_path / "new" / f"game{suffix}"
    played = video.record(FREEWAY, CONFIG, random_policy(3, 1), path, seed=1003)
    with AtariEnvs(FREEWAY, CONFIG, 1, seed=0) as envs:
        scores = evaluate(random_policy(3, 1), envs, 1, seed=1003)
    assert (played.score, played.agent_steps, played.capped) == (scores.mean, scores.agent_steps, True)
    assert (played.agent_steps, played.frames) == (AGENT_STEPS, 122)

    images, images_per_s = read(path)
    assert len(images) == AGENT_STEPS + 1
    assert images_per_s == pytest.approx(15, rel=0.12)  # GIF counts in hundredths of a second
    for image, screen in zip(images, screens(1003, random_policy(3, 1)), strict=False):
        enlarged = screen.repeat(2, axis=0).repeat(2, axis=1).astype(int)
        assert image.shape == enlarged.shape == (420, 320, 3)
        difference = np.abs(image - enlarged)
        assert difference.mean() <= mean_error
        assert (difference > 32 * mean_error).mean() < 0.002
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path):
    path = tmp_path / "game.mp4"
    path.write_bytes(b"older")
    policy = random_policy(3, 1)
    left = [5]

    def fails(obs):
        left[0] -= 1
        if left[0] == 0:
            raise RuntimeError("the network")
        return policy(obs)

    with pytest.raises(RuntimeError, match="the network"):
        video.record(FREEWAY, CONFIG, fails, path, seed=0)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(film.FORMATS, ".mp4", ["-c:v", "no-such-codec"])
    with pytest.raises(HSA2CError, match=r"game\.mp4: ffmpeg failed: .*no-such-codec") as raised:
        video.record(FREEWAY, CONFIG, random_policy(3, 1), tmp_path / "game.mp4", seed=0)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_film_of_any_size(tmp_path, suffix):
    dark, light = np.full((33, 21, 3), 20, np.uint8), np.full((33, 21, 3), 200, np.uint8)
    with film.film(tmp_path / f"a{suffix}", dark, images_per_s=10) as write:
        write(light)
    images, fps = read(tmp_path / f"a{suffix}")
    assert suffix == ".gif" or (len(images), fps) == (2, 10)  # what reads a GIF repeats images
    assert images[0].shape[:2] == ((34, 22) if suffix == ".mp4" else (33, 21))
    for image, level in ((images[0], 20), (images[-1], 200)):
        assert abs(image[4:28, 4:16].mean() - level) < 3


def test_other_suffixes_and_places_are_refused_before_playing(tmp_path):
    for name in ("game.avi", "game"):
        with pytest.raises(ConfigError, match=r"must end in \.mp4 or \.gif"):
            film.check_recordable(tmp_path / name)
    (tmp_path / "file").touch()
    (tmp_path / "folder.gif").mkdir()
    for place in ("file/game.gif", "folder.gif"):
        with pytest.raises(ConfigError, match=r"^video = "):
            film.check_recordable(tmp_path / place)


def test_without_the_extra_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigError, match=r"pip install 'hsa2c\[video\]'"):
        video.record(FREEWAY, CONFIG, random_policy(3, 1), tmp_path / "game.mp4", seed=0)
