"""How fast a run would be, and what would make it faster: nothing that its application refuses."""

import pytest

from hsa2c.agents.application import APPLICATION as ATARI
from hsa2c.cluster.world import ALONE
from hsa2c.doctor.finding import Level
from hsa2c.doctor.prediction import predict
from hsa2c.examples.lda.application import APPLICATION as LDA
from hsa2c.run.resolve import resolve
from tests.doctor.test_checks import LINK, seen


@pytest.mark.parametrize(("app", "cure"), [(ATARI, "--B auto"), (LDA, "--B ")])
def test_a_larger_b_is_advised_as_the_application_takes_it(app, cure):
    dpsgd = {"local_updates": 1, "exchange": "paper"}
    config = resolve(app, {"cluster": {"nodes": 2, "processes": 4}, "dpsgd": dpsgd}, ALONE)
    links = {"a": LINK, "b": LINK}
    found, figures = predict(seen({}, {}), config, links, {}, app=app)
    by_check = {finding.check: finding for finding in found}
    assert by_check["B"].level is Level.WARNING
    assert by_check["B"].cure.startswith(cure)
    assert by_check["speed"].text.split("/s")[0].endswith(app.pictures.unit)
    if app is LDA:
        assert by_check["B"].cure == f"--B {figures['auto_B']}"
        assert not any("auto" in finding.line() for finding in found)
