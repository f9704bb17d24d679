import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.cluster.world import World
from hsa2c.errors import ConfigError
from hsa2c.run import begin
from tests.run.runs import ALONE, HERE, OTHERS

# Rules


def test_what_was_left_to_the_rules_is_filled_in(prepare):
    config = prepare(cluster__nodes=4, dpsgd__momentum=0.5, dpsgd__global_factor=2.0).config
    assert (config.cluster.processes, config.dpsgd.deltas_per_step) == (2, 4)
    assert config.dpsgd.global_rate == pytest.approx(2.0 * 0.5 / 4)
    config = prepare(cluster__nodes=4, cluster__processes=3, dpsgd__deltas_per_step=2, dpsgd__global_rate=0.1).config
    assert (config.cluster.processes, config.dpsgd.deltas_per_step, config.dpsgd.global_rate) == (3, 2, 0.1)


@pytest.mark.parametrize(
    ("nodes", "p", "wanted", "exchange"),
    [
        (1, 1, "auto", "paper"),
        (1, 2, "auto", "overlap"),
        (2, 1, "auto", "overlap"),
        (1, 1, "overlap", "overlap"),
        (4, 4, "paper", "paper"),
    ],
)
def test_exchange_is_in_the_background_where_anybody_could_wait(prepare, nodes, p, wanted, exchange):
    run = prepare(cluster__nodes=nodes, cluster__processes=p, dpsgd__exchange=wanted)
    assert run.config.dpsgd.exchange == exchange


def test_exchange_of_an_application_that_cannot_overlap(prepare, monkeypatch):
    monkeypatch.setattr(type(APPLICATION), "overlaps", False)
    assert prepare(cluster__processes=2).config.dpsgd.exchange == "paper"
    with pytest.raises(ConfigError, match=r"^dpsgd\.exchange = 'overlap': hsa2c cannot"):
        prepare(dpsgd__exchange="overlap")


def test_annealing_needs_a_limit(prepare):
    with pytest.raises(ConfigError, match=r"^optimiser\.anneal = True: needs a limit"):
        prepare(optimiser__anneal=True)
    for limit in ({"stop__minutes": 1.0}, {"stop__agent_steps": 10}):
        assert prepare(optimiser__anneal=True, **limit).config.optimiser.anneal


# In a world of MPI


@pytest.mark.parametrize(("size", "nodes"), [(1, 1), (2, 1), (3, 2), (41, 40)])
def test_nodes_are_the_ranks_less_the_masters(prepare, size, nodes):
    world = World(0, size, started_by_mpi=True)
    assert prepare(world=world).config.cluster.nodes == nodes
    assert prepare(world=world, cluster__nodes=nodes).config.cluster.nodes == nodes
    with pytest.raises(ConfigError, match=f"this world has {size} ranks, one is the master: must be {nodes}$"):
        prepare(world=world, cluster__nodes=nodes + 1)


def test_several_masters_are_no_nodes(prepare):
    world = World(0, 8, started_by_mpi=True)
    assert prepare(world=world, cluster__masters=2, cluster__spares=1).config.cluster.nodes == 5
    with pytest.raises(ConfigError, match=r"this world has 8 ranks, 3 are masters, 1 spare: must be 4$"):
        prepare(world=world, cluster__masters=3, cluster__spares=1, cluster__nodes=5)


def test_one_node_needs_one_master(prepare):
    with pytest.raises(ConfigError, match=r"^cluster.masters = 2: one node needs no more than 1 \(or --nodes 2\)$"):
        prepare(cluster__masters=2)
    with pytest.raises(ConfigError, match=r"^cluster.masters = 2: one node"):
        prepare(world=World(0, 3, started_by_mpi=True), cluster__masters=2)
    assert prepare(cluster__nodes=2, cluster__masters=2).config.cluster.masters == 2


def test_number_of_nodes_in_a_file_must_fit_the_world_too(prepare):
    assert prepare("smoke", World(0, 3, started_by_mpi=True)).config.cluster.nodes == 2
    with pytest.raises(ConfigError, match="must be 3"):
        prepare("smoke", World(0, 4, started_by_mpi=True))


# Several hosts


def test_a_host_file_says_how_many_nodes(prepare, host_file, monkeypatch):
    monkeypatch.chdir(host_file.parent)
    cluster = prepare(cluster__hosts="hosts").config.cluster
    assert (cluster.nodes, cluster.processes, cluster.hosts) == (3, None, str(host_file)), "p is each host's share"
    config = prepare(cluster__hosts="hosts", cluster__nodes=1, cluster__processes=2, cluster__spares=1).config
    assert (config.cluster.nodes, config.cluster.processes) == (1, 2)
    assert config.dpsgd.exchange == "overlap"


def test_hosts_may_have_a_p_of_their_own(prepare, make_run, host_file):
    host_file.write_text("a p=1\nb slots=2\n")
    config = prepare(cluster__hosts=str(host_file)).config
    assert (config.cluster.nodes, config.cluster.processes) == (3, None)
    both = r"^cluster.processes = 2: .*hosts gives a a p of its own: must be one or the other \(--p, or p=\)$"
    with pytest.raises(ConfigError, match=both):
        prepare(cluster__hosts=str(host_file), cluster__processes=2)
    # One process is all there is, as with --p 1 --nodes 1: nothing could go on during an exchange.
    assert prepare(cluster__hosts=str(host_file), cluster__nodes=1).config.dpsgd.exchange == "paper"
    host_file.write_text("a p=2\n")
    assert prepare(cluster__hosts=str(host_file)).config.dpsgd.exchange == "overlap"
    # A run of one machine, whose p was that machine's or asked for, goes on there.
    config = begin.resume(APPLICATION, make_run(), {"cluster.hosts": str(host_file)}, None, ALONE).config
    assert (config.cluster.nodes, config.cluster.processes) == (1, None)
    directory = make_run(output__name="asked", cluster__processes=3)
    config = begin.resume(APPLICATION, directory, {"cluster.hosts": str(host_file)}, None, ALONE).config
    assert (config.cluster.nodes, config.cluster.processes) == (1, None)


def test_wrong_hosts_are_told_before_anything_is_written(prepare, host_file):
    host_file.write_text("a\na\n")
    for more in ({}, {"cluster__nodes": 2}):
        with pytest.raises(ConfigError, match=r"hosts, line 2: a: is there twice"):
            prepare(cluster__hosts=str(host_file), **more)
    with pytest.raises(ConfigError, match=r"^--hosts .*: this world is there already; give its file to mpiexec"):
        prepare(cluster__hosts=str(host_file), world=World(0, 3, started_by_mpi=True))


# In an allocation of Slurm or PBS


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (OTHERS, {}, ("allocation", 3, None)),
        (OTHERS, {"cluster__nodes": 5, "cluster__processes": 2}, ("allocation", 5, 2)),
        ((HERE, *OTHERS), {"cluster__spares": 1}, ("allocation", 4, None)),
        ((HERE,), {}, (None, 1, 8)),
        ((HERE,), {"cluster__nodes": 2}, (None, 2, 4)),
        ((HERE, *OTHERS), {"cluster__nodes": 1}, (None, 1, 8)),
        ((HERE, *OTHERS), {"cluster__nodes": 1, "cluster__spares": 1}, ("allocation", 1, None)),
        (OTHERS, {"cluster__hosts": None}, (None, 1, 8)),
    ],
)
def test_hosts_of_the_allocation(prepare, allocated, names, given, expected):
    allocated(*names)
    cluster = prepare(**given).config.cluster
    assert (cluster.hosts, cluster.nodes, cluster.processes) == expected


def test_an_allocation_takes_no_word_back(prepare, allocated, host_file):
    allocated(*OTHERS)
    assert prepare(cluster__hosts=str(host_file)).config.cluster.hosts == str(host_file)
    assert prepare(world=World(0, 3, started_by_mpi=True)).config.cluster.hosts is None
    for wrong in ({"cluster__nodes": "x"}, {"cluster__nodes": -1}, {"cluster__spares": -1}, {"cluster": 3}):
        with pytest.raises(ConfigError, match=r"^cluster"):
            prepare(**wrong)
    allocated()
    with pytest.raises(ConfigError, match=r"^cluster.hosts = 'allocation': this is no allocation"):
        prepare(cluster__hosts="allocation")
