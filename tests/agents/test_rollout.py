import numpy as np
import pytest
import torch

from hsa2c.agents.fast_network import FastActorCritic
from hsa2c.agents.network import initial_vector
from hsa2c.agents.rollout import Player, empty_rollout

ACTIONS = 3


def never():
    return False


def network(seed=0, precision="float32"):
    """Weights drawn by torch's rule: policies differ from uniform and from each other."""
    module = FastActorCritic(ACTIONS, "raw", precision)
    module.read(initial_vector(ACTIONS, seed, "torch"))
    return module


def player(envs, t_max, net=None, seed=5, **options):
    return Player(envs, net or network(), t_max=t_max, num_actions=ACTIONS, seed=seed, **options)


def slow_outputs(module, observation):
    """log pi and V of one observation, by the network alone."""
    logits, value = module(torch.from_numpy(observation[None]))
    probabilities = np.exp(logits[0].double().numpy())
    return np.log(probabilities / probabilities.sum()), float(value[0])


def check_against_log(rollout, module, log):
    """Every row of a rollout against what the environments saw, one number at a time."""
    assert len(log) == len(rollout.actions)
    for t, (before, actions, step) in enumerate(log):
        np.testing.assert_array_equal(rollout.observations[t], before)
        np.testing.assert_array_equal(rollout.observations[t + 1], step.obs)
        np.testing.assert_array_equal(rollout.actions[t], actions)
        np.testing.assert_array_equal(rollout.rewards[t], step.reward)
        for name in ("terminated", "truncated", "valid"):
            np.testing.assert_array_equal(getattr(rollout, name)[t], getattr(step, name))
        for i in range(len(actions)):
            log_pi, value = slow_outputs(module, before[i])
            assert rollout.log_probs[t, i] == pytest.approx(log_pi[actions[i]], abs=1e-5)
            assert rollout.values[t, i] == pytest.approx(value, abs=1e-5)
    last = log[-1][2].obs
    expected = [slow_outputs(module, last[i])[1] for i in range(len(last))]
    np.testing.assert_allclose(rollout.bootstrap_value, expected, atol=1e-5)


def test_arrays_line_up(make_envs):
    envs, net = make_envs([3, None]), network()
    rollout = player(envs, 6, net).play(never)
    check_against_log(rollout, net, envs.log)
    # By hand: environment 0 ends with its third step, the fourth is its reset, and so on.
    assert rollout.terminated.tolist() == [[t == 2, False] for t in range(6)]
    assert rollout.valid.tolist() == [[t != 3, True] for t in range(6)]
    assert not rollout.truncated.any()


def test_next_rollout_goes_on_where_the_last_one_ended(make_envs, levels):
    envs, net = make_envs([None, None]), network()
    plays = player(envs, 4, net)
    assert levels(plays.play(never).observations).tolist() == [[c, 60 + c] for c in range(5)]
    assert levels(plays.play(never).observations).tolist() == [[c, 60 + c] for c in range(4, 9)]
    check_against_log(plays.rollout, net, envs.log[4:])


def test_new_weights_act_in_the_next_rollout(make_envs):
    envs, net = make_envs([None]), network()
    plays = player(envs, 3, net)
    old = plays.play(never).bootstrap_value.copy()
    net.read(initial_vector(ACTIONS, 1, "torch"))
    rollout = plays.play(never)
    check_against_log(rollout, net, envs.log[3:])
    assert abs(rollout.values[0] - old).item() > 1e-4  # the same observation, seen by other weights


def test_truncations_are_told_from_terminations(make_envs):
    rollout = player(make_envs([2], truncates=True), 4).play(never)
    assert rollout.truncated.tolist() == [[False], [True], [False], [False]]
    assert not rollout.terminated.any()
    assert rollout.valid.tolist() == [[True], [True], [False], [True]]


def test_games_and_agent_steps_count_no_resets(make_envs):
    envs = make_envs([1, 2])
    plays = player(envs, 6)
    rollout = plays.play(never)
    # Environment 0 plays every other step, environment 1 two of three.
    assert plays.agent_steps == 3 + 4 == rollout.valid.sum()
    assert [game.frames for game in plays.games] == [4, 8, 4, 4, 8]
    assert [game.score for game in plays.games] == [game.score for *_, step in envs.log for game in step.games]
    plays.play(never)
    assert plays.agent_steps == 14
    assert len(plays.games) == 10


def test_times_grow(make_envs):
    plays = player(make_envs([None]), 2)
    assert (plays.acting_s, plays.emulator_s) == (0, 0)
    plays.play(never)
    assert plays.acting_s > 0
    assert plays.emulator_s > 0


def test_interrupted_rollout_is_given_up_at_once(make_envs):
    envs = make_envs([None, None])
    answers = iter([False, False, True])
    plays = player(envs, 5)
    assert plays.play(lambda: next(answers)) is None
    assert len(envs.log) == 2
    assert plays.agent_steps == 4
    assert plays.play(lambda: True) is None
    assert len(envs.log) == 2


def test_after_an_interruption_play_goes_on_from_the_present_state(make_envs):
    envs, net = make_envs([None]), network()
    plays = player(envs, 4, net)
    answers = iter([False, False, True])
    plays.play(lambda: next(answers))
    check_against_log(plays.play(never), net, envs.log[2:])


def test_actions_are_drawn_by_the_seed(make_envs):
    def actions(seed):
        return player(make_envs([None, None]), 20, seed=seed).play(never).actions.copy()

    np.testing.assert_array_equal(actions(1), actions(1))
    assert (actions(1) != actions(2)).any()
    assert set(actions(1).flat) == set(range(ACTIONS))


def test_features_are_those_of_the_weights_that_acted(make_envs):
    envs, net = make_envs([3, None]), network()
    plays = player(envs, 4, net, keep_features=True)
    for seed in (0, 1):
        net.read(initial_vector(ACTIONS, seed, "torch"))
        rollout = plays.play(never)
        assert len(rollout.features) == 4
        for observations, features in zip(rollout.observations, rollout.features, strict=False):
            expected = network(seed).features(torch.from_numpy(observations))
            for ours, theirs in zip(features, expected, strict=True):
                torch.testing.assert_close(ours, theirs)


def test_levels_are_enough_to_look_again(make_envs):
    net = network()
    rollout = player(make_envs([3, None]), 4, net).play(never)
    assert not rollout.features
    for observations, levels in zip(rollout.observations, rollout.levels, strict=False):
        seen = torch.from_numpy(observations)
        for ours, theirs in zip(net.at(seen, levels), net.features(seen), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_bfloat16_rounds_values_but_little(make_envs):
    exact = player(make_envs([None, None]), 1).play(never)
    rough = player(make_envs([None, None]), 1, network(precision="bfloat16")).play(never)
    assert rough.values.dtype == np.float32
    assert (rough.values != exact.values).any()
    np.testing.assert_allclose(rough.values, exact.values, atol=0.02)


def test_empty_rollout_has_the_shapes_that_are_promised():
    rollout = empty_rollout(3, 2)
    assert rollout.observations.shape == (4, 2, 4, 84, 84)
    assert rollout.observations.dtype == np.uint8
    assert rollout.actions.dtype == np.int64
    assert rollout.bootstrap_value.shape == (2,)
    for name in ("actions", "log_probs", "values", "rewards", "terminated", "truncated", "valid"):
        assert getattr(rollout, name).shape == (3, 2), name
