"""HSA2C as an application: its configuration, and what it puts together."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hsa2c.agents.application import APPLICATION, AtariConfig
from hsa2c.agents.network import ActorCritic, initial_vector, num_parameters
from hsa2c.agents.settings import network_identity
from hsa2c.application import at_node
from hsa2c.cluster.world import World
from hsa2c.config.loading import build, find_config, read_yaml, to_dict
from hsa2c.envs.atari import MAX_SEED
from hsa2c.run import begin

REPOSITORY = Path(__file__).resolve().parents[2]
EVERY = sorted((REPOSITORY / "configs").rglob("*.yaml"))
SHIPPED = [path for path in EVERY if path.parent.name != "gym"]  # those: tests/agents/gym/test_settings.py
ALONE = World(0, 1, started_by_mpi=False)
TINY = {"agent": {"num_envs": 2, "t_max": 3, "passes": 1, "minibatches": 1, "precision": "float32"}}


def config_of(**values):
    return APPLICATION.build_config(TINY | values)


# Configurations


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(REPOSITORY / "configs")))
def test_every_shipped_configuration_is_whole_when_resolved(path, tmp_path):
    given = {"output.run_dir": str(tmp_path)}
    config = begin.prepare(APPLICATION, given, str(path), ALONE).config
    assert config.cluster.processes >= 1
    assert config.dpsgd.deltas_per_step == config.cluster.nodes
    assert config.dpsgd.global_rate > 0
    assert config.output.name.startswith(config.game)
    assert build(type(config), to_dict(config)) == config
    resolved = to_dict(config)
    for section, fields in read_yaml(path).items():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if value is not None and (section, name) != ("output", "run_dir"):
                assert resolved[section][name] == value, f"{section}.{name}"
    assert list(tmp_path.iterdir()) == [], "preparing writes nothing"


def test_there_are_shipped_configurations():
    names = {str(path.relative_to(REPOSITORY / "configs")) for path in SHIPPED}
    assert {"pong.yaml", "smoke.yaml", "paper/ddrl_a3c.yaml", "paper/hsa2c.yaml"} <= names
    for name in ("pong", "paper/hsa2c", "pong.yaml"):
        assert find_config(name, "hsa2c.configs") in SHIPPED


def test_pong_yaml_writes_out_the_defaults_but_for_its_limits():
    written = read_yaml(REPOSITORY / "configs" / "pong.yaml")
    defaults = to_dict(AtariConfig(game="Pong"))
    assert written.pop("stop") != defaults["stop"]
    for section, fields in written.items():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            assert defaults[section][name] == value, f"{section}.{name}"


def test_constants_of_the_paper(tmp_path):
    given = {"output.run_dir": str(tmp_path)}
    config = begin.prepare(APPLICATION, given, "paper/hsa2c", ALONE).config
    dpsgd = config.dpsgd
    assert (dpsgd.global_rate, dpsgd.momentum, dpsgd.deltas_per_step) == (0.01, 0.5, 40)
    assert dpsgd.global_rate * dpsgd.deltas_per_step / (1 - dpsgd.momentum) == pytest.approx(0.8)


def test_baseline_of_the_paper_averages_gradients(tmp_path):
    config = begin.prepare(APPLICATION, {"output.run_dir": str(tmp_path)}, "paper/ddrl_a3c", ALONE).config
    dpsgd = config.dpsgd
    assert (dpsgd.local_updates, config.cluster.processes, dpsgd.exchange) == (1, 1, "synchronous")
    assert dpsgd.global_rate * dpsgd.deltas_per_step == pytest.approx(1.0)


def test_rate_keeps_the_factor_whatever_the_number_of_nodes(tmp_path):
    for nodes, momentum in itertools.product((1, 3, 40), (0.0, 0.5)):
        given = {"output.run_dir": str(tmp_path), "cluster.nodes": nodes, "dpsgd.momentum": momentum}
        dpsgd = begin.prepare(APPLICATION, given, None, ALONE).config.dpsgd
        assert dpsgd.global_rate * dpsgd.deltas_per_step / (1 - momentum) == pytest.approx(1.0)


def test_game_is_found_as_people_type_it():
    assert config_of(game="space_invaders").game == "SpaceInvaders"
    assert config_of(game="ALE/Breakout-v5").game == "Breakout"


# What a checkpoint must agree on


@pytest.mark.parametrize(
    ("game", "full", "actions"), [("Pong", False, 6), ("Breakout", False, 4), ("Breakout", True, 18)]
)
def test_identity_dim_and_initial_vector_are_of_one_network(game, full, actions):
    config = config_of(game=game, env={"full_action_set": full})
    identity = APPLICATION.identity(config)
    assert identity == {
        "application": "hsa2c",
        "game": game,
        "network": network_identity(actions, "background"),
        "actions": str(actions),
    }
    v = APPLICATION.initial(config)
    assert v.dtype == np.float32
    assert v.shape == (APPLICATION.dim(config),) == (num_parameters(ActorCritic(actions)),)


def test_initial_vector_is_drawn_by_the_seed():
    first, again, other = (APPLICATION.initial(config_of(seed=seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(first, initial_vector(6, 5, "orthogonal").numpy())


def test_initialisation_is_a_choice():
    config = APPLICATION.build_config({"agent": {"initialisation": "torch"}})
    np.testing.assert_array_equal(APPLICATION.initial(config), initial_vector(6, 1, "torch").numpy())


# Problems


@pytest.fixture
def seeds_of(monkeypatch):
    """The seeds of environments and agent that a process is given."""

    def fake_envs(game, config, num_envs, *, seed, in_thread):
        return seed

    def fake_agent(config, environments, num_actions, *, precision, seed):
        return environments, seed

    def seeds_of(seed, node, index, t, **agent):
        monkeypatch.setattr("hsa2c.envs.roms.preload", lambda *_: [])
        monkeypatch.setattr("hsa2c.envs.atari.AtariEnvs", fake_envs)
        monkeypatch.setattr("hsa2c.agents.problem.AtariProblem", fake_agent)
        config = APPLICATION.build_config({"seed": seed, "agent": TINY["agent"] | agent})
        return APPLICATION.problems(config, node, t)(index)

    return seeds_of


def test_each_process_has_seeds_of_its_own(seeds_of):
    places = list(itertools.product((0, 1), (0, 1, 2), (0, 1, 2), (0, 7)))
    found = [seeds_of(*place) for place in places]
    assert len({envs for envs, _ in found}) == len(places)
    assert len({agent for _, agent in found}) == len(places)
    assert found == [seeds_of(*place) for place in places], "the same again"


def test_seeds_are_in_range(seeds_of):
    for index in range(200):
        envs, agent = seeds_of(1, 0, index, 0, num_envs=4096, t_max=1)
        assert 0 <= envs <= MAX_SEED - 4096
        assert 0 <= agent < 2**32


def test_games_are_shared_out_to_the_processes_of_each_node(monkeypatch):
    monkeypatch.setattr("hsa2c.envs.roms.preload", lambda *_: [])
    monkeypatch.setattr("hsa2c.envs.atari.AtariEnvs", lambda game, config, num_envs, *, seed, in_thread: num_envs)
    monkeypatch.setattr("hsa2c.agents.problem.AtariProblem", lambda config, environments, *_, **__: environments)
    config = APPLICATION.build_config({"agent": {"precision": "float32"}})
    for nodes, p, num_envs in ((1, 2, 64), (1, 3, 32), (1, 28, 16), (20, 1, 16), (40, 2, 4)):
        config_there = at_node(APPLICATION, config, p, nodes=nodes, cores=4)
        assert APPLICATION.problems(config_there, 0, 0)(0) == num_envs
        assert APPLICATION.work_per_update(config_there) == 64


def test_a_seed_decides_all():
    config = config_of(agent={"num_envs": 6, "t_max": 4, "minibatches": 2})
    u = torch.from_numpy(APPLICATION.initial(config))

    def gradients(problem):
        yield from (problem.gradient(u, lambda: False).clone() for _ in range(6))
        yield problem.report()["agent_steps"]

    first, second = (list(gradients(APPLICATION.problems(config, 0, 0)(0))) for _ in range(2))
    assert first.pop() == second.pop() == 3 * 4 * 6
    assert all(map(torch.equal, first, second))


def test_problem_learns_from_the_game():
    config = config_of()
    problem = APPLICATION.problems(config, 0, 0)(0)
    try:
        v = torch.from_numpy(APPLICATION.initial(config))
        gradient = problem.gradient(v, lambda: False)
        assert gradient.shape == v.shape
        assert 0 < float(gradient.norm()) <= config.agent.max_gradient_norm * 1.0001
        tracker = APPLICATION.tracker(config, {})
        tracker.add(0, problem.report())
        assert tracker.work == 6
        assert tracker.row(1.0)["updates"] == 1
    finally:
        problem.close()


# Words and limits


def test_title_counts_in_words():
    def title(nodes, processes):
        return APPLICATION.title(
            config_of(cluster={"nodes": nodes, "processes": processes}, dpsgd={"local_updates": 5})
        )

    assert title(2, 1) == "HSA2C Pong: 2 nodes x 1 actor-learner x 2 environments, B = 5"
    assert title(1, 3) == "HSA2C Pong: 1 node x 3 actor-learners x 2 environments, B = 5"


def test_title_says_what_environments_come_to():
    def title(**cluster):
        return APPLICATION.title(APPLICATION.build_config({"cluster": cluster}))

    assert title(nodes=1, processes=4) == "HSA2C Pong: 1 node x 4 actor-learners x 32 environments, B = 8"
    assert title(nodes=3, hosts="hosts.txt") == "HSA2C Pong: 3 nodes x p actor-learners, B = 8"


def test_the_console_is_told_how_many_emulators_start(monkeypatch):
    monkeypatch.setattr("hsa2c.agents.application.cores_here", lambda: 2)

    def starting(**cluster):
        return APPLICATION.starting(APPLICATION.build_config({"cluster": cluster}))

    words = "starting 40 nodes x 1 actor-learner x 4 environments = 160 emulators"
    assert starting(nodes=40, processes=1) == words
    assert starting(nodes=1, processes=2) == "starting 1 node x 2 actor-learners x 64 environments = 128 emulators"
    assert starting(nodes=2, processes=1, spares=1).endswith("= 192 emulators")
    assert starting(nodes=3, hosts="hosts.txt") == ""


def test_limits_and_tracker_follow_the_stop_conditions():
    config = APPLICATION.build_config({"stop": {"agent_steps": 10, "score": 3.5}})
    assert APPLICATION.limits(config) == {"agent_steps": 10}
    assert APPLICATION.limits(APPLICATION.build_config({})) == {}
    assert APPLICATION.tracker(config, {"agent_steps": 10}).reached() == "10 agent steps (limit 10)"
    good = {"last_scores": [4.0] * 100}
    assert "goal 3.5" in APPLICATION.tracker(config, good).reached()
    assert APPLICATION.tracker(APPLICATION.build_config({}), good | {"agent_steps": 10}).reached() is None


def test_what_the_console_shows_is_in_the_rows():
    row = APPLICATION.tracker(config_of(), {}).row(1.0).keys() | {"exchanges", "policy/entropy"}
    row |= {"staleness/mean", "staleness/overlap_mean", "master/busy"}
    assert {field.key for field in (*APPLICATION.fields, APPLICATION.curve)} <= row


def test_node_says_what_it_chose_and_others_choose_the_same():
    assert APPLICATION.describe(config_of()) == {"precision": "float32", "num_envs": 2}
    left = APPLICATION.build_config({"agent": {"precision": "auto", "t_max": 4}})
    said = APPLICATION.describe(at_node(APPLICATION, left, 3, nodes=1, cores=3))
    assert said["precision"] in ("float32", "bfloat16")
    assert said["num_envs"] == 32
    agent = APPLICATION.chosen(left, said).agent
    assert (agent.precision, agent.num_envs, agent.t_max) == (said["precision"], 32, 4)
    said = APPLICATION.describe(at_node(APPLICATION, left, 1, nodes=40, cores=2))
    assert APPLICATION.problems(APPLICATION.chosen(left, said), 0, 0) is not None
    assert APPLICATION.chosen(left, said).agent.num_envs == said["num_envs"] == 4
    assert APPLICATION.chosen(config_of(), {}) == config_of(), "nodes of an earlier version say nothing"


# Quick to start


@pytest.mark.parametrize("module", ["hsa2c.agents.application", "train", "hsa2c.run.launcher", "hsa2c.__main__"])
def test_neither_torch_nor_mpi_is_loaded_before_it_is_needed(module, tmp_path):
    code = f"""
import sys
import {module}
from hsa2c.agents.application import APPLICATION
from hsa2c.run import begin
from hsa2c.cluster.world import World
config = begin.prepare(APPLICATION, {{"output.run_dir": {str(tmp_path)!r}}}, None, World(0, 1, False)).config
APPLICATION.title(config), APPLICATION.limits(config), APPLICATION.tracker(config, {{}})
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "mpi4py", "tensorboard", "matplotlib"}}))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert (run.returncode, run.stdout, run.stderr) == (0, "[]\n", "")
