"""Whatever is typed: a run is prepared, or one line says what is wrong, with exit code 2, and nothing is written."""

import contextlib
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsa2c.commands import train

NUMBERS = st.one_of(
    st.integers(-3, 50),
    st.floats(),
    st.sampled_from(["1e3", "1e400", "-0", "0x10", "1_000", "٣", "nan", "true", "null"]),
).map(str)
TEXTS = st.one_of(
    st.sampled_from(
        ["Pong", "pogn", "", "ALE/Pong-v5", "combat", "../x", "a b", "x" * 300, "\x00", "🎮", "{}", "[1, 2"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
FIELDS = st.one_of(
    st.sampled_from(
        ["agent.discount", "agent.num_envs", "agent", "cluster.nodes", "cluster.spares", "dpsgd.exchange", "env",
         "optimiser.name", "output.checkpoint_every_s", "stop", "seed", "game", "dpsgd.max_delay", "env.sticky"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)  # fmt: skip
OPTIONS = st.one_of(
    st.tuples(st.sampled_from(["--nodes", "--p", "--B", "--M", "--rho", "--lr", "--momentum", "--seed"]), NUMBERS),
    st.tuples(st.just("--masters"), NUMBERS),
    st.tuples(st.sampled_from(["--agent-steps", "--minutes", "--score", "--spares", "--restarts"]), NUMBERS),
    st.tuples(st.sampled_from(["--game", "--config", "--name", "--exchange", "--nodes", "--nosuch"]), TEXTS),
    st.tuples(
        st.just("--set"), st.builds("{}={}".format, FIELDS, st.one_of(NUMBERS, TEXTS, st.just("{num_envs: 2, x: [}")))
    ),
)


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch):
    monkeypatch.setattr(train, "launch", lambda _: 0)
    for name in ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(options=st.lists(OPTIONS, min_size=1, max_size=3))
def test_whatever_is_typed(options):
    arguments = [text for option in options for text in option]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        errors = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stderr(errors):  # a run would be written there
            try:
                code = train.main(arguments)
            except SystemExit as end:  # argparse's own complaints
                code = end.code
        said = errors.getvalue()
        if code == 0:
            assert len(list((folder / "runs").iterdir())) == 1
            return
        assert code == 2, said
        assert said.count("\n") == 1, said
        assert said.startswith("train.py: ")
        assert not list(folder.iterdir()), "something was written"
