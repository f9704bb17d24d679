import shutil

import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.cluster.world import World
from hsa2c.config.loading import read_yaml
from hsa2c.errors import CheckpointError, ConfigError, FinishedError
from hsa2c.observe.runlog import Journal
from hsa2c.run import begin
from hsa2c.run.master import global_step
from tests.run.runs import ALONE, OTHERS, add_checkpoint, as_of_0_1, events, resume


def followed(config):
    """P, M and rho."""
    return config.cluster.processes, config.dpsgd.deltas_per_step, config.dpsgd.global_rate


def on_fewer_hosts(directory, nodes):
    """The configuration of a restart."""
    run = resume(directory)
    return begin.on_fewer_hosts(APPLICATION, run.asked, run.config, nodes)


# New runs


def test_run_that_exists_is_not_started_again(prepare, make_run):
    directory = make_run()
    with pytest.raises(ConfigError, match=rf"^{directory}: exists; --resume {directory} goes on with it"):
        prepare(output__name="old")


def test_names_given_by_the_clock_do_not_meet(prepare):
    names = []
    for _ in range(3):
        with prepare().open() as run:
            names.append(run.directory.name)
            assert run.config.output.name == run.directory.name
    assert len(set(names)) == 3
    assert all(name.startswith("Pong-2") for name in names)


def test_other_ranks_come_when_the_directory_is_there_already(prepare):
    with prepare(world=World(0, 3, started_by_mpi=True), output__name="world").open() as run:
        assert prepare(world=World(1, 3, started_by_mpi=True), output__name="world").config == run.config


# Resumed runs


def test_resume_goes_on_from_the_newest_checkpoint(make_run):
    directory = make_run()
    with resume(directory).open() as run:
        path = add_checkpoint(run, 20)
    run = resume(directory, stop__agent_steps=1000)
    assert (run.checkpoint, run.session, run.directory, list(run.remarks)) == (path, 3, directory, [])
    with run.open():
        pass
    _, event = events(directory, "resume")
    assert (event["session"], event["message"]) == (3, "resuming from step-000000020.safetensors")
    assert (directory / "about-3.yaml").is_file()
    assert (directory / "about.yaml").is_file()
    assert read_yaml(directory / "config.yaml")["stop"]["agent_steps"] == 1000
    assert resume(directory).config.stop.agent_steps == 1000, "later resumes keep it"


def test_session_that_left_no_checkpoint_counts_too(make_run):
    directory = make_run()
    sessions = []
    for _ in range(3):
        with resume(directory).open() as run:
            sessions.append(run.session)
    assert sessions == [2, 3, 4]
    assert [event["session"] for event in events(directory, "resume")] == sessions


def test_damaged_checkpoint_is_passed_over_and_remarked(make_run):
    directory = make_run()
    damaged = directory / "checkpoints" / "step-000000020.safetensors"
    damaged.write_bytes(b"\0" * 100)
    run = resume(directory)
    assert run.checkpoint.name == "step-000000010.safetensors"
    (remark,) = run.remarks
    assert remark.startswith(f"{damaged}: damaged")
    with run.open():
        pass
    assert [event["message"] for event in events(directory, "warning")] == [remark]
    assert [event["message"] for event in events(directory, "resume")] == ["resuming from step-000000010.safetensors"]


def test_no_good_checkpoint(make_run):
    directory = make_run()
    path = directory / "checkpoints" / "step-000000010.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="none of 1 checkpoints can be loaded"):
        resume(directory)


def test_run_renamed_by_its_user_can_be_resumed(make_run, tmp_path):
    directory = make_run().rename(tmp_path / "new")
    with resume(directory).open() as run:
        assert run.directory == directory


def test_a_copy_goes_on_under_its_own_name(make_run, tmp_path):
    copy = shutil.copytree(make_run(), tmp_path / "copy")
    given = {"output.run_dir": str(tmp_path), "output.name": "copy"}
    assert begin.prepare(APPLICATION, given, None, ALONE, again=True).checkpoint.parent.parent == copy


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"game": "Boxing"}, "game = 'Boxing': cannot change in a resumed run, which has 'Pong'"),
        ({"seed": 2}, "seed = 2: cannot change in a resumed run, which has 1"),
        ({"output__name": "x"}, "output.name = 'x': cannot change in a resumed run, which has 'old'"),
        ({"output": {"name": "x"}}, "output.name = 'x': cannot change in a resumed run, which has 'old'"),
        (
            {"agent__initialisation": "torch"},
            "agent.initialisation = 'torch': cannot change in a resumed run, which has 'orthogonal'",
        ),
        ({"optimiser__name": "sgd"}, "optimiser.name = 'sgd': cannot change in a resumed run, which has 'adam'"),
    ],
)
def test_settings_that_a_resumed_run_keeps(make_run, given, rule):
    with pytest.raises(ConfigError) as caught:
        resume(make_run(), **given)
    assert str(caught.value) == rule


def test_settings_that_may_change(make_run):
    directory = make_run()
    run = resume(directory, game="pong", seed=1, optimiser__learning_rate=0.1, agent__t_max=40, dpsgd__local_updates=3)
    config = run.config
    assert (config.optimiser.learning_rate, config.agent.t_max, config.dpsgd.local_updates) == (0.1, 40, 3)


def test_nothing_left_to_do(make_run):
    directory = make_run(stop__agent_steps=100)
    with pytest.raises(ConfigError, match=r"nothing left to do: 100 agent steps \(limit 100\); raise the limit$"):
        resume(directory)
    assert resume(directory, stop__agent_steps=101).config.stop.agent_steps == 101
    with pytest.raises(ConfigError, match=r"nothing left to do: 0\.01 min of training; raise the limit$"):
        resume(directory, stop__agent_steps=101, stop__minutes=0.01)


FOLLOWED = [
    # what the run was started with, what the resume is given, then processes, M and rho
    ({}, {}, (4, 2, 0.5)),
    ({}, {"cluster__nodes": 4}, (2, 4, 0.25)),
    ({}, {"cluster__nodes": 2}, (4, 2, 0.5)),
    ({}, {"cluster__nodes": 1}, (8, 1, 1.0)),
    ({"dpsgd__global_rate": 0.3}, {"cluster__nodes": 4}, (2, 4, 0.3)),
    ({"dpsgd__deltas_per_step": 1}, {"cluster__nodes": 4}, (2, 1, 1.0)),
    ({"dpsgd__momentum": 0.5}, {"cluster__nodes": 4}, (2, 4, 0.125)),
    ({"dpsgd__global_factor": 3.0}, {"cluster__nodes": 4}, (2, 4, 0.75)),
    ({}, {"cluster__nodes": 4, "dpsgd__deltas_per_step": 2}, (2, 2, 0.5)),
    ({}, {"cluster__nodes": 4, "dpsgd__global_rate": 0.1}, (2, 4, 0.1)),
    ({}, {"cluster__nodes": 4, "cluster__processes": 7}, (7, 4, 0.25)),
    ({}, {"dpsgd__deltas_per_step": 1}, (4, 1, 1.0)),
    ({}, {"dpsgd__momentum": 0.75}, (4, 2, 0.125)),
    ({}, {"dpsgd__global_factor": 3.0}, (4, 2, 1.5)),
    ({"dpsgd__global_rate": 0.3}, {"dpsgd__momentum": 0.75}, (4, 2, 0.3)),
    ({"cluster__processes": 3}, {}, (3, 2, 0.5)),
]

#: What was asked for stays, though its rule gave the same there; null leaves it to the rule again.
ASKED_FOR = [
    ({"cluster__processes": 3}, {"cluster__nodes": 4}, (3, 4, 0.25)),
    ({"cluster__processes": 4}, {"cluster__nodes": 4}, (4, 4, 0.25)),
    ({"dpsgd__deltas_per_step": 2}, {"cluster__nodes": 4}, (2, 2, 0.5)),
    ({"dpsgd__global_rate": 0.5}, {"cluster__nodes": 4}, (2, 4, 0.5)),
    ({"cluster__processes": 3}, {"cluster__processes": None}, (4, 2, 0.5)),
]


@pytest.mark.parametrize(("start", "given", "expected"), FOLLOWED)
@pytest.mark.parametrize("saves_asked", [True, False])
def test_what_followed_by_rule_follows_again(make_run, start, given, expected, saves_asked):
    directory = make_run(**({"cluster__nodes": 2} | start))
    if not saves_asked:
        as_of_0_1(directory)
    assert followed(resume(directory, **given).config) == pytest.approx(expected)


@pytest.mark.parametrize(("start", "given", "expected"), ASKED_FOR)
def test_what_was_asked_for_stays(make_run, start, given, expected):
    directory = make_run(**({"cluster__nodes": 2} | start))
    with resume(directory, **given).open() as run:
        assert followed(run.config) == pytest.approx(expected)
    assert resume(directory).config == run.config


def test_asked_has_what_was_given_and_nothing_else(make_run, tmp_path):
    directory = make_run(game="pong", cluster__processes=3, agent={"t_max": 4})
    asked = {
        "output": {"run_dir": str(tmp_path), "name": "old"},
        "game": "pong",
        "cluster": {"processes": 3},
        "agent": {"t_max": 4},
    }
    assert read_yaml(directory / "asked.yaml") == asked
    with resume(directory, cluster__nodes=2, stop__agent_steps=1000).open():
        pass
    asked |= {"cluster": {"processes": 3, "nodes": 2}, "stop": {"agent_steps": 1000}}
    assert read_yaml(directory / "asked.yaml") == asked


def test_asked_has_the_settings_of_the_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("cluster: {processes: 2}\ndpsgd: {local_updates: 4, deltas_per_step: null}\n")
    given = {"output.run_dir": str(tmp_path), "output.name": "mine", "dpsgd.local_updates": 8}
    with begin.prepare(APPLICATION, given, str(tmp_path / "mine.yaml"), ALONE).open() as run:
        asked = read_yaml(run.directory / "asked.yaml")
    assert asked == {
        "cluster": {"processes": 2},
        "dpsgd": {"local_updates": 8, "deltas_per_step": None},
        "output": {"run_dir": str(tmp_path), "name": "mine"},
    }


@pytest.mark.parametrize(("text", "rule"), [("cluster: 3", "cluster = 3"), ("- 1", "holds list"), ("a: 1", "no such")])
def test_asked_that_somebody_has_spoilt(make_run, text, rule):
    directory = make_run()
    (directory / "asked.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rule):
        resume(directory)


@pytest.mark.parametrize("start", [{}, {"cluster__nodes": 2}, {"cluster__processes": 1}, {"dpsgd__global_rate": 0.3}])
def test_run_of_0_1_goes_on_as_it_was(make_run, start):
    directory = make_run(**start)
    before = resume(directory).config
    as_of_0_1(directory)
    with resume(directory).open() as run:
        assert run.config == before
    assert resume(directory).config == before
    assert events(directory, "settings") == []


def test_run_of_0_1_on_hosts_goes_on_there(make_run, host_file):
    directory = make_run(cluster__hosts=str(host_file))
    before = resume(directory).config
    as_of_0_1(directory)
    assert resume(directory).config == before
    fewer = on_fewer_hosts(directory, 2)
    assert followed(fewer) == (None, 2, 0.5)


@pytest.mark.parametrize(("start", "follows"), [({}, True), ({"dpsgd__global_rate": 0.5}, False)])
def test_rho_follows_lost_nodes_unless_it_was_given(make_run, start, follows):
    directory = make_run(**({"cluster__nodes": 2} | start))
    dpsgd = resume(directory).config.dpsgd
    assert (dpsgd.global_rate, dpsgd.rescale_rate) == (0.5, follows)
    assert global_step(resume(directory).config, 3).mean_of == (2 if follows else None)
    assert resume(directory, dpsgd__rescale_rate=not follows).config.dpsgd.rescale_rate is not follows


def test_world_says_the_number_of_nodes_anew(make_run):
    directory = make_run(cluster__nodes=2)
    world = World(0, 5, started_by_mpi=True)
    with begin.resume(APPLICATION, directory, {}, None, world).open() as run:
        assert run.config.cluster.nodes == 4
    assert resume(directory).config.cluster.nodes == 4, "it stays, until something says another"
    assert "nodes" not in read_yaml(directory / "asked.yaml")["cluster"]


# On other hosts


def test_resume_on_other_hosts(make_run, host_file):
    directory = make_run(cluster__hosts=str(host_file))
    resume = lambda world=ALONE, **given: begin.resume(APPLICATION, directory, given, None, world).config
    config = resume()
    assert (config.cluster.nodes, config.cluster.hosts, config.dpsgd.deltas_per_step) == (3, str(host_file), 3)
    config = resume(**{"cluster.hosts": None, "cluster.nodes": 2})
    assert (config.cluster.hosts, config.cluster.processes, config.dpsgd.deltas_per_step) == (None, 4, 2)
    other = host_file.with_name("others")
    other.write_text("c slots=5")
    config = resume(**{"cluster.hosts": str(other)})
    assert (config.cluster.nodes, config.cluster.processes, config.dpsgd.global_rate) == (5, None, 0.2)
    config = resume(World(0, 4, started_by_mpi=True))
    assert (config.cluster.nodes, config.cluster.hosts) == (3, None), "its starter knows the hosts"


def test_restart_with_fewer_nodes_follows_the_rules(make_run, host_file):
    directory = make_run(cluster__hosts=str(host_file), cluster__nodes=4, cluster__processes=3)
    fewer = on_fewer_hosts(directory, 2)
    assert (fewer.cluster.nodes, fewer.cluster.processes) == (2, 3), "p was given"
    assert fewer.cluster.hosts == str(host_file)
    assert (fewer.dpsgd.deltas_per_step, fewer.dpsgd.global_rate, fewer.dpsgd.max_delay) == (2, 0.5, 10)


def test_restart_with_fewer_nodes_keeps_the_p_of_a_host(make_run, host_file):
    host_file.write_text("a p=1\nb slots=2\n")
    directory = make_run(cluster__hosts=str(host_file))
    assert on_fewer_hosts(directory, 2).cluster.processes is None


def test_resumed_run_takes_the_hosts_where_it_is(make_run, allocated):
    resumed = lambda directory, **given: resume(directory, **given).config.cluster
    allocated(*OTHERS)
    directory = make_run(cluster__nodes=2)
    cluster = resumed(directory)
    assert (cluster.hosts, cluster.nodes, cluster.processes) == ("allocation", 2, None)
    assert resumed(directory, cluster__processes=3).processes == 3
    assert resumed(directory, cluster__hosts=None).hosts is None
    allocated()
    cluster = resumed(directory)
    assert (cluster.hosts, cluster.nodes, cluster.processes) == (None, 2, 4)
    with resume(directory).open():  # which is now its configuration, until it is in an allocation again
        pass
    allocated(*OTHERS)
    cluster = resumed(directory)
    assert (cluster.hosts, cluster.nodes, cluster.processes) == ("allocation", 2, None)


# --go-on


def test_go_on_begins_or_resumes(tmp_path):
    go_on = lambda **given: begin.prepare(
        APPLICATION, {"output.run_dir": str(tmp_path), "output.name": "old"} | given, "smoke", ALONE, again=True
    )
    with go_on().open() as run:
        assert (run.session, run.checkpoint) == (1, None)
    # It ended before its first checkpoint: anew in the same directory, and what was written before is void.
    with go_on().open() as run:
        assert (run.session, run.checkpoint) == (2, None)
    add_checkpoint(run, 10)
    with go_on(seed=0).open() as run:
        assert run.session == 3
        assert run.checkpoint is not None
        assert run.checkpoint.name == "step-000000010.safetensors"
    with pytest.raises(ConfigError, match=r"^seed = 5: cannot change in a resumed run, which has 0"):
        go_on(seed=5)


def test_go_on_refuses_another_game_with_or_without_checkpoints(make_run, tmp_path):
    directory = make_run(game="Pong")
    go_on = lambda **given: begin.prepare(
        APPLICATION, {"output.run_dir": str(tmp_path), "output.name": "old"} | given, "smoke", ALONE, again=True
    )
    before = (directory / "config.yaml").read_bytes()
    for remains in (True, False):
        if not remains:
            shutil.rmtree(directory / "checkpoints")
        with pytest.raises(
            ConfigError, match=r"old: is a run of game 'Pong', this one is of 'Breakout'; --name starts"
        ):
            go_on(game="Breakout")
        assert (directory / "config.yaml").read_bytes() == before


def test_go_on_refuses_to_begin_anew_where_a_checkpoint_was_lost(make_run, tmp_path):
    directory = make_run(game="Breakout")
    with Journal(directory, session=1) as journal:
        journal.event("checkpoint", "checkpoint", path=str(directory / "checkpoints" / "step-000000010.safetensors"))
    shutil.rmtree(directory / "checkpoints")
    given = {"output.run_dir": str(tmp_path), "output.name": "old"}
    for more in ({}, {"game": "Breakout"}):
        with pytest.raises(
            ConfigError, match=r"no checkpoint, but step-000000010\.safetensors was written: put it back"
        ):
            begin.prepare(APPLICATION, given | more, "smoke", ALONE, again=True)


def test_go_on_refuses_checkpoints_without_a_configuration(make_run, tmp_path):
    directory = make_run()
    (directory / "config.yaml").unlink()
    given = {"output.run_dir": str(tmp_path), "output.name": "old"}
    with pytest.raises(ConfigError, match=r"old: holds checkpoints, but no config\.yaml"):
        begin.prepare(APPLICATION, given, "smoke", ALONE, again=True)


def test_beginning_anew_and_other_settings_are_told(tmp_path):
    for rate in (0.001, 0.002):
        given = {"output.run_dir": str(tmp_path), "output.name": "old", "optimiser.learning_rate": rate}
        with begin.prepare(APPLICATION, given, "smoke", ALONE, again=True).open() as run:
            pass
    (told,) = events(run.directory, "settings")
    assert told["message"] == "other settings than before: optimiser.learning_rate = 0.002, was 0.001"
    (warning,) = events(run.directory, "warning")
    assert warning["message"] == "no checkpoint was written before: begins anew, and its curves at 0"


def test_going_on_with_a_finished_run_is_no_failure(make_run, tmp_path):
    make_run(stop__agent_steps=100)
    given = {"output.run_dir": str(tmp_path), "output.name": "old"}
    with pytest.raises(FinishedError, match=r"old: nothing left to do: .*; raise the limit to go on$") as told:
        begin.prepare(APPLICATION, given, None, ALONE, again=True)
    assert told.value.exit_code == 0
