"""A short share of ``python -m tests.fuzz``: another seed than the command's, so that both together see more."""

import pytest

from tests.fuzz.harness import fuzz, reader_modules


@pytest.mark.parametrize(("name", "module"), reader_modules().items())
def test_mutated_inputs_are_read_or_refused(name, module):
    outcome = fuzz(module, name, inputs=300, seed=2)
    assert outcome.faults == []
    assert min(outcome.read, outcome.refused) > 0
