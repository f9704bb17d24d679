"""Against the real emulator. A copy of a game takes about 0.1 s to load, so the tests use few."""

from pathlib import Path

import ale_py
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Discrete
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from hsa2c.envs import atari
from hsa2c.envs.atari import AtariEnvs
from hsa2c.envs.names import all_games, resolve_game
from hsa2c.envs.settings import EnvConfig
from hsa2c.errors import ConfigError

PONG, BREAKOUT, FREEWAY = resolve_game("pong"), resolve_game("breakout"), resolve_game("freeway")
SPACE_INVADERS = resolve_game("space_invaders")


@pytest.fixture(scope="module")
def pong():
    """Two copies, shared: each test resets them."""
    with AtariEnvs(PONG, EnvConfig(), 2, seed=0) as envs:
        yield envs


def play(envs, agent_steps, *, seed=None, actions_seed=0):
    """The first observation and the steps of random play."""
    obs = envs.reset(seed)
    rng = np.random.default_rng(actions_seed)
    return obs, [envs.step(rng.integers(0, envs.num_actions, envs.num_envs)) for _ in range(agent_steps)]


def same(a, b):
    """Whether two plays are equal in every bit."""
    return np.array_equal(a[0], b[0]) and all(
        all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))
        for one, other in zip(a[1], b[1], strict=True)
    )


class FireFirst(gymnasium.Wrapper):
    """The start of a game as `EnvConfig.fire_reset` has it, without no-ops."""

    def reset(self, **options):
        _, info = self.env.reset(**options)
        meanings = self.env.unwrapped.get_action_meanings()
        return (self.env.step(meanings.index("FIRE"))[0] if "FIRE" in meanings else None), info


@pytest.mark.parametrize("game", [BREAKOUT, FREEWAY])
def test_observations_are_those_of_gymnasiums_wrappers_to_the_pixel(game):
    gymnasium.register_envs(ale_py)
    reference = gymnasium.make(
        f"ALE/{game.name}-v5", frameskip=1, repeat_action_probability=0.0, disable_env_checker=True
    )
    reference = AtariPreprocessing(FireFirst(reference), noop_max=0, frame_skip=4)
    reference = FrameStackObservation(reference, 4, padding_type="zero")
    rng = np.random.default_rng(0)
    with AtariEnvs(game, EnvConfig(noop_max=0, clip_rewards=False, life_loss_episodes=False), 1, seed=0) as envs:
        assert envs.num_actions == reference.action_space.n
        np.testing.assert_array_equal(envs.reset()[0], reference.reset(seed=0)[0])
        for _ in range(300):
            action = rng.integers(0, envs.num_actions, 1)
            step = envs.step(action)
            obs, reward, terminated, _, _ = reference.step(int(action[0]))
            np.testing.assert_array_equal(step.obs[0], obs)
            assert (step.reward[0], step.terminated[0]) == (reward, terminated)
            if terminated:
                break
        assert terminated == (game is BREAKOUT)
    reference.close()


def test_shapes_and_types(pong):
    obs, (step,) = play(pong, 1)
    for image in (obs, step.obs):
        assert (image.shape, image.dtype) == ((2, 4, 84, 84), np.uint8)
    assert (step.reward.shape, step.reward.dtype) == ((2,), np.float32)
    for flags in (step.terminated, step.truncated, step.valid):
        assert (flags.shape, flags.dtype) == ((2,), np.bool_)
    assert not obs[:, :3].any()
    assert obs[:, 3].any()
    np.testing.assert_array_equal(step.obs[:, 2], obs[:, 3])


@pytest.mark.parametrize("max_frames", [108_000, 302])
def test_books_are_kept_over_whole_games(max_frames):
    with AtariEnvs(
        BREAKOUT, EnvConfig(clip_rewards=False, life_loss_episodes=False, max_frames=max_frames), 2, seed=3
    ) as envs:
        _, steps = play(envs, 320)
    score, agent_steps, before, seen = np.zeros(2), np.zeros(2, int), None, 0
    for step in steps:
        assert not (step.terminated & step.truncated).any()
        score += step.reward
        agent_steps += step.valid
        if before is not None:
            np.testing.assert_array_equal(step.valid, ~(before.terminated | before.truncated))
        for env in np.flatnonzero(~step.valid):
            # A new game: nothing happened yet, and its stack holds its first image alone.
            assert not (step.reward[env] or step.terminated[env] or step.truncated[env])
            assert not step.obs[env, :3].any()
        assert [game.env for game in step.games] == np.flatnonzero(step.terminated | step.truncated).tolist()
        for game in step.games:
            env = game.env
            assert (game.score, game.agent_steps) == (score[env], agent_steps[env])
            assert game.capped == step.truncated[env]
            assert 4 * (agent_steps[env] - 1) < game.frames <= min(4 * agent_steps[env], max_frames)
            score[env] = agent_steps[env] = 0
            seen += 1
        before = step
    capped = [game for step in steps for game in step.games if game.capped]
    assert seen >= (2 if max_frames > 302 else 8)
    assert len(capped) == (0 if max_frames > 302 else seen)
    # 302 frames are 75 agent steps of 4 and one that is cut off after 2.
    assert all((game.frames, game.agent_steps) == (302, 76) for game in capped)


def test_clipping_keeps_the_sign_for_learning_and_the_score_raw():
    with AtariEnvs(SPACE_INVADERS, EnvConfig(clip_rewards=False, max_frames=800), 1, seed=0) as envs:
        _, raw = play(envs, 201)
    with AtariEnvs(SPACE_INVADERS, EnvConfig(clip_rewards=True, max_frames=800), 1, seed=0) as envs:
        _, clipped = play(envs, 201)
    rewards = np.array([step.reward[0] for step in raw])
    assert rewards.max() > 1
    np.testing.assert_array_equal([step.reward[0] for step in clipped], np.sign(rewards))
    assert clipped[199].games == raw[199].games
    assert clipped[199].games[0].score == rewards.sum()


def test_negative_rewards_stay_negative(pong):
    _, steps = play(pong, 80)
    assert {float(step.reward[0]) for step in steps} == {0.0, -1.0}


def test_a_lost_life_ends_the_episode_and_nothing_else():
    """The game itself must be the same: the same images, scores and new games."""
    with AtariEnvs(BREAKOUT, EnvConfig(life_loss_episodes=False), 1, seed=0) as envs:
        whole = play(envs, 280)
    with AtariEnvs(BREAKOUT, EnvConfig(life_loss_episodes=True), 1, seed=0) as envs:
        lives = play(envs, 280)
    ends = np.zeros(1, int)
    games = 0
    for a, b in zip(whole[1], lives[1], strict=True):
        np.testing.assert_array_equal(a.obs, b.obs)
        np.testing.assert_array_equal(a.reward, b.reward)
        np.testing.assert_array_equal(a.valid, b.valid)
        np.testing.assert_array_equal(a.truncated, b.truncated)
        assert a.games == b.games
        assert not (a.terminated & ~b.terminated).any()
        ends += b.terminated
        for game in b.games:
            games += 1
            assert ends[game.env] == 5  # Breakout gives 5 lives.
            ends[game.env] = 0
    assert games >= 1


class Scripted:
    """In place of the emulators: one environment that has so many lives, and is so over, step by step."""

    single_action_space = Discrete(6)

    def __init__(self, script):
        self.script = iter(script)

    def reset(self, seed):
        return np.zeros((1, 4, 84, 84), np.uint8), self.info(next(self.script)[0])

    def send(self, actions):
        pass

    def recv(self):
        lives, reward, over = next(self.script)
        obs = np.zeros((1, 4, 84, 84), np.uint8)
        return obs, np.array([reward], np.int32), np.array([over]), np.array([False]), self.info(lives)

    def info(self, lives):
        return {"lives": np.array([lives], np.int32), "episode_frame_number": np.zeros(1, np.int32)}


def test_the_last_life_ends_with_the_game_and_a_new_game_loses_none(monkeypatch):
    # Some games show 0 lives before they are over, or are over with lives left, or start with fewer than they ended.
    script = [(3, 0, False), (2, 7, False), (2, 0, False), (0, 1, False), (0, 2, True), (3, 0, False), (3, 4, True)]
    script += [(1, 0, False), (1, 5, False)]
    monkeypatch.setattr(atari, "open_native", lambda *_: Scripted(script))
    envs = AtariEnvs(PONG, EnvConfig(life_loss_episodes=True), 1, seed=0)
    envs.reset()
    steps = [envs.step(np.zeros(1, np.int64)) for _ in script[1:]]
    assert [bool(step.terminated[0]) for step in steps] == [True, False, False, True, False, True, False, False]
    assert [bool(step.valid[0]) for step in steps] == [True, True, True, True, False, True, False, True]
    assert [(game.score, game.agent_steps) for step in steps for game in step.games] == [(10, 4), (4, 1)]


def test_a_life_lost_at_the_frame_cap_is_terminated_not_truncated():
    with AtariEnvs(BREAKOUT, EnvConfig(life_loss_episodes=True), 1, seed=0) as envs:
        _, steps = play(envs, 100)
    lost = next(index for index, step in enumerate(steps) if step.terminated[0])
    with AtariEnvs(BREAKOUT, EnvConfig(life_loss_episodes=True, max_frames=4 * (lost + 1)), 1, seed=0) as envs:
        _, steps = play(envs, lost + 2)
    assert (steps[lost].terminated[0], steps[lost].truncated[0]) == (True, False)
    assert steps[lost].games[0].capped
    assert not steps[lost + 1].valid[0]


@pytest.mark.slow
def test_equal_seeds_give_equal_games_whatever_the_threads_and_the_number():
    config = EnvConfig(sticky_actions=0.25)
    with AtariEnvs(PONG, config, 2, seed=7) as envs:
        first = play(envs, 30)
        assert same(first, play(envs, 30)), "reset() begins the same games again"
        assert not same(first, play(envs, 30, seed=9))
    with AtariEnvs(PONG, config, 2, seed=7, num_threads=2) as envs:
        assert same(first, play(envs, 30))
    rng = np.random.default_rng(0)
    actions = [rng.integers(0, 6, 2) for _ in range(30)]
    with AtariEnvs(PONG, config, 1, seed=0) as envs:
        for env in range(2):
            np.testing.assert_array_equal(envs.reset(7 + env)[0], first[0][env])
            for action, step in zip(actions, first[1], strict=True):
                np.testing.assert_array_equal(envs.step(action[env : env + 1]).obs[0], step.obs[env])


# Emulators in the caller's thread


def assert_equal_to_native(game, config, num_envs, agent_steps):
    with AtariEnvs(game, config, num_envs, seed=7) as native:
        expected = play(native, agent_steps), native.start_frame
    with AtariEnvs(game, config, num_envs, seed=7, in_thread=True) as own:
        assert same(play(own, agent_steps), expected[0])
        np.testing.assert_array_equal(own.start_frame, expected[1])
    return sum(len(step.games) for step in expected[0][1])


def test_games_are_those_of_the_native_environment_to_the_bit():
    assert assert_equal_to_native(BREAKOUT, EnvConfig(), 2, 300) >= 2
    uncommon = EnvConfig(sticky_actions=0.25, full_action_set=True, fire_reset=False, noop_max=3, max_frames=43)
    assert assert_equal_to_native(SPACE_INVADERS, uncommon, 1, 60) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("game", all_games()[::4], ids=lambda game: game.name)
def test_a_quarter_of_all_games_is_that_of_the_native_environment(game):
    assert assert_equal_to_native(game, EnvConfig(max_frames=402), 1, 130) >= 1


def test_no_op_starts_differ_and_reach_noop_max():
    starts = set()
    # A game of one agent step: every other step starts a new one, with new no-ops.
    with AtariEnvs(FREEWAY, EnvConfig(noop_max=4, max_frames=4), 2, seed=0) as envs:
        envs.reset()
        for _ in range(40):
            starts |= set(envs.start_frame.tolist())
            envs.step(np.zeros(2, np.int64))
    assert starts == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("fire", [True, False])
def test_fire_starts_a_game_that_waits_for_it(fire):
    with AtariEnvs(BREAKOUT, EnvConfig(fire_reset=fire, life_loss_episodes=True), 1, seed=0) as envs:
        envs.reset()
        lost = any(envs.step(np.zeros(1, np.int64)).terminated[0] for _ in range(100))
    assert lost == fire


def test_sticky_actions_hold_the_action_before():
    def images(sticky, action):
        with AtariEnvs(FREEWAY, EnvConfig(sticky_actions=sticky, noop_max=0), 1, seed=0) as envs:
            envs.reset()
            return [envs.step(np.full(1, action)).obs for _ in range(40)][-1]

    assert not np.array_equal(images(0.0, 0), images(0.0, 1))
    assert np.array_equal(images(1.0, 0), images(1.0, 1))  # Always the no-op it began with.


def test_full_action_set():
    for full, number in ((False, 3), (True, 18)):
        with AtariEnvs(FREEWAY, EnvConfig(full_action_set=full), 1, seed=0) as envs:
            assert envs.num_actions == number


def test_send_and_recv_are_a_step_and_keep_their_order(pong):
    _, steps = play(pong, 5)
    pong.reset()
    rng = np.random.default_rng(0)
    for step in steps:
        pong.send(rng.integers(0, 6, 2))
        with pytest.raises(AssertionError, match="send before recv"):
            pong.send(np.zeros(2, np.int64))
        with pytest.raises(AssertionError, match="reset between"):
            pong.reset()
        np.testing.assert_array_equal(pong.recv().obs, step.obs)
        with pytest.raises(AssertionError, match="recv before send"):
            pong.recv()


@pytest.mark.timeout(20)
def test_an_action_there_is_not_is_an_error_and_not_a_wait_for_ever(pong):
    pong.reset()
    for actions in ([0, 6], [-1, 0]):
        with pytest.raises(ValueError, match="must be 0 to 5"):
            pong.step(np.array(actions))
    assert pong.step(np.array([5, 0])).valid.all()


def test_bad_seeds_are_one_line(pong):
    for seed in (-1, 2**31 - 3):
        with pytest.raises(ConfigError, match=rf"^seed = {seed}: must be 0 to {2**31 - 5} with 4 environments$"):
            AtariEnvs(PONG, EnvConfig(), 4, seed=seed)
    with pytest.raises(ConfigError, match=r"^seed"):
        pong.reset(-5)
    assert pong.reset(2**31 - 3).any()


def test_nothing_is_printed(capfd, monkeypatch):
    monkeypatch.setenv("ALE_ROMS_DIR", str(Path(ale_py.__file__).parent / "roms"))
    with AtariEnvs(PONG, EnvConfig(), 1, seed=0) as envs:
        play(envs, 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [None, b"not a game"])
def test_a_missing_or_damaged_rom_is_one_line(tmp_path, monkeypatch, content):
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    if content is not None:
        (tmp_path / "pong.bin").write_bytes(content)
    with pytest.raises(ConfigError, match=r"^game = 'Pong': its ROM cannot be read") as raised:
        AtariEnvs(PONG, EnvConfig(), 1, seed=0)
    assert "\n" not in str(raised.value)


def test_close_twice_also_while_the_emulators_run():
    envs = AtariEnvs(PONG, EnvConfig(), 1, seed=0)
    envs.reset()
    envs.send(np.zeros(1, np.int64))
    envs.close()
    envs.close()
    with pytest.raises(AssertionError):
        envs.reset()
