"""The command that tells rates and conditions."""

import pytest

from hsa2c.commands import rates


def test_rates_and_conditions(capsys):
    assert rates.main(["--p", "2", "--B", "2", "--M", "4", "--T", "10000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Eq. 13  rate for p = 2, B = 2, M = 4, from 0.1 at p = B = M = 1: 0.05"
    # A = 1 + 1 + 2; rho = sqrt(1 / (4 * sqrt(160000)))
    assert lines[1] == "Eq. 9   rho = eta = 0.025 for T = 10,000 (A = 4)"
    assert lines[2] == "Eq. 11  mean squared gradient norm at most 0.03"
    assert lines[3].startswith("Eq. 7   delay between nodes: 0.0001 <= 1: holds; by Eq. 10, T >= 1")
    assert "does not hold" in lines[4]
    assert lines[5].endswith("eta <= 0.00938 (at mu = 2.434): does not hold; by Eq. 10, T >= 504,680")


def test_condition_that_fails_is_called_so(capsys):
    assert rates.main(["--M", "100", "--B", "100", "--T", "1", "--D-prime", "100"]) == 0
    assert "<= 1: does not hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--B", "0"], "hsa2c rates: --B 0: must be at least 1"),
        (["--D-prime", "-1"], "hsa2c rates: --D-prime -1: must be at least 0"),
        (["--L", "0"], "hsa2c rates: --L 0.0: must be greater than 0"),
        (["--V", "nan"], "hsa2c rates: --V nan: must be greater than 0"),
        (["--alpha", "2"], "hsa2c rates: --alpha 2.0: must be greater than 0, at most 1"),
        (["--mu", "1"], "hsa2c rates: --mu 1.0: must be between 0 and 1"),
    ],
)
def test_bad_values_are_refused(capsys, arguments, line):
    assert rates.main(arguments) == 2
    assert capsys.readouterr().err.strip() == line
