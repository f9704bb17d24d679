"""DPSVI's side of the runtime: rules that fill in a configuration, and what a run is known by."""

import json
import math
import subprocess
import sys
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from hsa2c.config.loading import merge, nested
from hsa2c.errors import ConfigError
from hsa2c.examples.lda.application import (
    APPLICATION,
    corpus_of,
    initial_counts,
    model_of,
    positivity_warning,
    rate_of,
    split_of,
)
from hsa2c.examples.lda.rates import Rate
from tests.examples.lda.planted import Planted

REPOSITORY = Path(__file__).resolve().parents[3]


def configure(**values):
    """A configuration of dotted names, whose dots are written __; as `rundir` gives it to `resolve`."""
    plain = {"cluster": {"processes": 2}, "dpsgd": {"deltas_per_step": values.get("cluster__nodes", 1)}}
    for name, value in values.items():
        plain = merge(plain, nested(name.replace("__", "."), value))
    return APPLICATION.build_config(plain)


def resolve(**values):
    return APPLICATION.resolve(configure(**values))


@pytest.fixture(scope="module")
def source(corpus_files):
    """The settings of the planted corpus."""
    counts, words = corpus_files
    return {"corpus__source": str(counts), "corpus__vocabulary": str(words), "model__topics": 5}


# Paths


def test_paths_of_the_corpus_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    corpus = configure(corpus__source="x/docword.txt", corpus__vocabulary="~/vocab.txt").corpus
    assert (corpus.source, corpus.vocabulary) == (f"{tmp_path}/x/docword.txt", "/home/me/vocab.txt")
    assert configure().corpus.source == "pydocs"
    assert configure(corpus__source="./pydocs").corpus.source == f"{tmp_path}/pydocs"


def test_a_current_directory_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match=r"^x\.dat: the current directory is not there: "):
        configure(corpus__source="x.dat")


# Rules


def test_priors_are_one_over_K():
    model = resolve(model__topics=40).model
    assert (model.document_prior, model.topic_prior) == (1 / 40, 1 / 40)
    model = resolve(model__topics=40, model__document_prior=0.3, model__topic_prior=2).model
    assert (model.document_prior, model.topic_prior) == (0.3, 2.0)


def test_eq13_gives_both_rates():
    """0.1 / (2 * 8 * 1)^0.25 = 0.05; and with M = 2 of 4 nodes, 0.1 / (2 * 8 * 2)^0.25."""
    config = resolve(optimiser__rule="eq13", dpsgd__local_updates=8)
    assert config.optimiser.learning_rate == config.dpsgd.global_rate == pytest.approx(0.05)
    assert rate_of(config) == Rate(eta=config.optimiser.learning_rate)
    config = resolve(optimiser__rule="eq13", dpsgd__local_updates=8, cluster__nodes=4, dpsgd__deltas_per_step=2)
    assert config.optimiser.learning_rate == config.dpsgd.global_rate == pytest.approx(0.1 / 32**0.25)
    assert APPLICATION.resolve(config) == config, "a resumed run finds what it had"


def test_rates_of_the_other_rules():
    assert rate_of(resolve(optimiser__kappa=0.6, optimiser__tau0=2)) == Rate(kappa=0.6, tau0=2.0)
    optimiser = resolve().optimiser
    assert rate_of(resolve()) == Rate(kappa=optimiser.kappa, tau0=optimiser.tau0), "svi is what there is otherwise"
    assert rate_of(resolve(optimiser__rule="constant", optimiser__learning_rate=0.02)) == Rate(eta=0.02)


@pytest.mark.parametrize(
    ("nodes", "B", "step"),
    [
        (1, 8, 1.0),  # nothing is stale, and the sum of one delta is its mean
        (2, 1, 2.0),  # small deltas: their sum
        (4, 1, 4.0),
        (2, 8, 1.065),  # in between: as far as the bound for a delay of one step, 1/4
        (2, 15, 1.0),  # beyond it even with the mean: then the mean, and a warning
    ],
)
def test_global_rate_goes_from_mean_to_sum_as_far_as_lambda_stays_positive(nodes, B, step):
    """`step` is rho * M. For nodes = 2, p = 1, tau0 = 128, kappa = 0.7: a = rho M (1 - (1 - eta)^B) <= 1/4."""
    config = resolve(cluster__nodes=nodes, cluster__processes=1, dpsgd__local_updates=B)
    assert config.dpsgd.global_rate * nodes == pytest.approx(step, abs=1e-3)
    assert (positivity_warning(config) is None) == (B < 15)


def test_a_given_global_rate_is_kept():
    given = resolve(cluster__nodes=2, cluster__processes=1, dpsgd__local_updates=1, dpsgd__global_rate=0.3)
    assert given.dpsgd.global_rate == 0.3


@pytest.mark.parametrize(("rule", "eta"), [("constant", None), ("svi", 0.1)])
def test_learning_rate_belongs_to_the_constant_rule(rule, eta):
    with pytest.raises(ConfigError) as caught:
        resolve(optimiser__rule=rule, optimiser__learning_rate=eta)
    assert str(caught.value).startswith(f"optimiser.learning_rate = {eta}: ")
    assert str(caught.value).endswith(f" it is {rule}")


def test_more_masters_than_numbers_are_refused(source):
    small = source | {"model__topics": 2}
    dim = APPLICATION.dim(configure(**small))
    with pytest.raises(ConfigError, match=rf"^cluster.masters = {dim + 1}: v has {dim} numbers, must be"):
        resolve(**small, cluster__nodes=2, cluster__masters=dim + 1)


@pytest.mark.parametrize(
    ("values", "updates"),
    [
        ({"dpsgd__local_updates": 1_000_000}, 2_000_000),
        ({"dpsgd__local_updates": 3, "optimiser__rule": "constant", "optimiser__learning_rate": 1}, 6),
    ],
)
def test_too_many_updates_between_exchanges_are_refused(values, updates):
    with pytest.raises(ConfigError) as caught:
        resolve(**values)
    line = str(caught.value)
    assert line.startswith(f"dpsgd.local_updates = {values['dpsgd__local_updates']}: {updates} updates between two")
    assert "\n" not in line


def test_as_many_updates_as_leave_something_are_taken():
    resolve(dpsgd__local_updates=2, optimiser__rule="constant", optimiser__learning_rate=1)
    resolve(dpsgd__local_updates=1000)
    for rule in ("svi", "eq13"):
        with pytest.raises(ConfigError, match=r"^dpsgd.local_updates = 'auto': must be a number here"):
            resolve(optimiser__rule=rule, dpsgd__local_updates="auto")


def test_bad_sizes_of_parts_are_refused(source):
    for name in ("validation", "test"):
        with pytest.raises(ConfigError, match=rf"^corpus\.{name} = 1\.5: must be a share below 1 or a whole number"):
            split_of(configure(**source, **{f"corpus__{name}": 1.5}))


# Positivity


def with_rho(rho, **values):
    return resolve(dpsgd__global_rate=rho, **values)


def test_one_node_never_makes_lambda_negative():
    """Nobody else's delta is older than its v: a = 1 - kept, below 1."""
    config = with_rho(1.0, optimiser__rule="constant", optimiser__learning_rate=0.9, cluster__processes=1)
    assert positivity_warning(config) is None


def test_stale_deltas_of_several_nodes_are_warned_of():
    """Two nodes, M = 1, so a delay of 1: a = 1 - (1 - 0.05)^(2 * 8) = 0.560, above 1/4; with B = 2, 0.185."""
    values = {
        "cluster__nodes": 2,
        "dpsgd__deltas_per_step": 1,
        "optimiser__rule": "constant",
        "optimiser__learning_rate": 0.05,
        "dpsgd__local_updates": 8,
    }
    warning = positivity_warning(with_rho(1.0, **values))
    assert "= 0.560 at first, above 0.250 for a delay of 1:" in warning
    assert "\n" not in warning
    assert positivity_warning(with_rho(1.0, **(values | {"dpsgd__local_updates": 2}))) is None
    assert positivity_warning(with_rho(0.4, **values)) is None
    assert "above 0.148 for a delay of 2:" in positivity_warning(with_rho(1.0, **(values | {"cluster__nodes": 3})))


def test_svi_rates_are_warned_of_where_they_are_highest():
    values = {"cluster__nodes": 2, "dpsgd__deltas_per_step": 1, "optimiser__kappa": 0.7, "cluster__processes": 1}
    for tau0, warned in ((1, True), (10_000, False)):
        warning = positivity_warning(with_rho(1.0, **values, optimiser__tau0=tau0, dpsgd__local_updates=1))
        assert ("= 1.000 at first" in warning) if warned else warning is None


# What a run is known by


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("pydocs", "lda-pydocs"),
        ("/data/docword.nytimes.txt.gz", "lda-docword-nytimes"),
        ("some/ap.dat", "lda-ap"),
        ("texts/", "lda-texts"),
        ("un été à Paris", "lda-un--t----Paris"),
        ("x" * 300 + ".mtx", "lda-" + "x" * 40),
        ("[].txt", "lda-"),
    ],
)
def test_label_is_a_name_that_a_run_may_have(name, label):
    config = configure(corpus__source=name)
    assert APPLICATION.label(config) == label
    configure(output__name=f"{label}-20260101-120000")


def test_title_says_what_runs(source):
    config = resolve(**source, cluster__nodes=3, dpsgd__local_updates=4)
    assert APPLICATION.title(config) == (
        "DPSVI docword.planted.txt: 400 documents, 120 words, 5 topics; 3 nodes x 2 processes, B = 4, variational"
    )
    config = resolve(**source, cluster__processes=1, dpsgd__local_updates=8)
    assert APPLICATION.title(config).endswith("; 1 node x 1 process, B = 8, variational")


def test_limits(source):
    assert APPLICATION.limits(resolve(**source)) == {}
    assert APPLICATION.limits(resolve(**source, stop__documents=1000)) == {"documents": 1000}
    assert APPLICATION.limits(resolve(**source, stop__passes=2)) == {"documents": 720}


def test_identity_is_of_corpus_and_model(source, tmp_path):
    identity = APPLICATION.identity(resolve(**source))
    assert identity == {
        "application": "lda",
        "corpus": corpus_of(configure(**source)).digest,
        "words": "120",
        "topics": "5",
        "inference": "variational",
    }
    counts, words = Planted(seed=1).write_uci(tmp_path)
    others = [
        source | {"corpus__source": str(counts), "corpus__vocabulary": str(words)},
        source | {"model__topics": 6},
        source | {"model__inference": "posterior-mean"},
    ]
    for other in others:
        assert APPLICATION.identity(resolve(**other)) != identity
    assert APPLICATION.identity(resolve(**source, seed=5, model__batch=3)) == identity


def test_dimensions_agree(source):
    config = resolve(**source)
    assert APPLICATION.dim(config) == 120 * 5
    v = APPLICATION.initial(config)
    assert (v.dtype, v.shape) == (np.float32, (600,))
    layout = APPLICATION.layout(config)
    assert layout.value(np.zeros(layout.size, np.float32)).shape == (600,)


def test_initial_counts_are_gamma_100():
    x = initial_counts(100_000, 1)
    assert x.mean() == pytest.approx(1, abs=1e-3)
    assert x.std() == pytest.approx(0.1, rel=0.02)
    np.testing.assert_array_equal(x[:50], initial_counts(50, 1))
    assert (x[:50] != initial_counts(50, 2)).any()


def test_model_is_the_configurations(source):
    config = resolve(**source, model__inference="posterior-mean", model__document_prior=0.3, model__tolerance=0.01)
    model = model_of(config)
    assert (model.K, model.alpha, model.eta0, model.mean) == (5, 0.3, 0.2, True)
    assert (model.tolerance, model.most_iterations) == (0.01, 100)


# Problems


def documents_dealt(config, nodes, p):
    """Ids of the first pass, of each process of each node."""
    ids = []
    for node in range(nodes):
        make = APPLICATION.problems(config, node, 0)
        for index in range(p):
            problem = make(index)
            mine = len(range(node * p + index, 360, nodes * p))
            batches = islice(problem.batches, -(-mine // config.model.batch))
            ids.append(np.concatenate(list(batches)).tolist())
    return ids


def test_processes_of_all_nodes_deal_the_training_set_out(source):
    config = resolve(**source, cluster__nodes=2, model__batch=7)
    ids = documents_dealt(config, 2, 2)
    assert sorted(chain(*ids)) == split_of(config).training.tolist()
    assert split_of(config).training.size == 360
    assert documents_dealt(config, 2, 2) == ids


def test_a_resumed_run_shuffles_anew(source):
    config = resolve(**source)
    first, again, later = (next(APPLICATION.problems(config, 0, t)(0).batches).tolist() for t in (0, 0, 57))
    assert first == again != later


def test_a_problem_learns(source):
    """The problem, the layout and v_0 of one configuration fit together."""
    config = resolve(**source, model__batch=64, optimiser__tau0=10)
    problem, layout = APPLICATION.problems(config, 0, 0)(0), APPLICATION.layout(config)
    u, state = torch.zeros(layout.size), torch.zeros(layout.state_size)
    layout.enter(APPLICATION.initial(config), u.numpy())
    access = layout.attach(u, state, problem)
    tracker = APPLICATION.tracker(config, {})
    tracker.measure(layout.value(u.numpy()), due=True)
    before = tracker.quality
    for _ in range(60):
        access.step(problem.gradient(access.read(), lambda: False))
    tracker.add(0, json.loads(json.dumps(problem.report())))
    tracker.measure(layout.value(u.numpy()), due=True)
    assert tracker.quality > 0.6 * before, "minus the perplexity, which has fallen"
    assert tracker.work == 10 * 360, "six batches are a pass"
    assert math.isfinite(tracker.row(1.0)["bound/per_token"])


# The launcher


LAUNCHER = """
import json, sys
from pathlib import Path
from hsa2c.examples.lda.application import positivity_warning
from hsa2c import application
from hsa2c.commands import run_options
from hsa2c.run import begin
from hsa2c.run import launcher as launch
from hsa2c.cluster.world import World

name = "hsa2c.examples.lda.application"
app = application.load(name)
options = run_options.parser(app.command).parse_args()
run = begin.prepare(app, run_options.given(app.command, options), options.config, World(0, 1, started_by_mpi=False))
positivity_warning(run.config)
what = launch.Launch(
    app=name, asked=run.asked, config=run.config, directory=run.directory, title=app.title(run.config)
)
launch.console_of(what)
app.tracker(run.config, {})  # where a run is resumed
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_launcher_loads_neither_torch_nor_mpi(corpus_files, tmp_path):
    counts, words = corpus_files
    arguments = ["--corpus", counts, "--vocab", words, "--topics", 5, "--passes", 2, "--run-dir", tmp_path / "runs"]
    run = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout))
    assert "numpy" in loaded
    assert not {"torch", "mpi4py", "sklearn", "matplotlib"} & loaded
    assert not (tmp_path / "runs").exists(), "nothing is written"
