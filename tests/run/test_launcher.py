"""How the launcher learns of the end. What starts the ranks is in `test_mpiexec`, whole runs in `test_end_to_end`."""

import pytest

from hsa2c.errors import EXIT_FAILED
from hsa2c.run import launcher as launch


@pytest.mark.parametrize(
    ("said", "code", "expected"), [("0", 137, 0), ("1", 0, 1), (None, 137, 137), ("", 0, EXIT_FAILED)]
)
def test_the_masters_word_counts_not_mpiexecs(tmp_path, said, code, expected):
    """Some rank's exit code is that of mpiexec; without the master's word it has died, whatever that code is."""
    path = tmp_path / "verdict"
    if said is not None:
        path.write_text(said)
    assert launch._verdict(path, code) == expected
