"""A short share of ``python -m tests.fuzz``: another seed than the command's, so that both together see more."""

import pytest

from tests.fuzz.harness import fuzz, reader_modules

QUICK = ("checkpoint", "configuration", "uci")  # a process each


@pytest.mark.parametrize(
    ("name", "module", "inputs"),
    [pytest.param(name, module, 60, marks=pytest.mark.slow) for name, module in reader_modules().items()]
    + [(name, reader_modules()[name], 50) for name in QUICK],
)
def test_mutated_inputs_are_read_or_refused(name, module, inputs):
    outcome = fuzz(module, name, inputs=inputs, seed=2)
    assert outcome.faults == []
    assert min(outcome.read, outcome.refused) > 0
