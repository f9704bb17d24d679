"""The rate of Corollary 1: the problem's mathematics, the fit, and short runs."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bench import rate_real
from bench.rate import main, mean_squared_norm, slope
from bench.rate_real import Norms, measured
from bench.robust_regression import DIM, MU, RobustRegression, Row, Setting
from hsa2c.dpsgd.theory import equal_rates


def test_gradient_is_that_of_f_and_the_mean_of_its_rows() -> None:
    f = RobustRegression()
    random = np.random.default_rng(1)
    for _ in range(5):
        u, direction = random.standard_normal((2, f.x.shape[1]))
        slope_there = (f.value(u + 1e-5 * direction) - f.value(u - 1e-5 * direction)) / 2e-5
        assert f.gradient(u) @ direction == pytest.approx(slope_there, rel=1e-5, abs=1e-9)
        rows = [f.row_gradient(i, u) for i in range(len(f.y))]
        np.testing.assert_allclose(np.mean(rows, axis=0), f.gradient(u), atol=1e-12)
        assert max(np.linalg.norm(row) for row in rows) <= f.V


def test_f_is_what_the_theorem_assumes_and_not_convex() -> None:
    f = RobustRegression()
    random = np.random.default_rng(2)
    a, b = 3 * random.standard_normal((2, 200, f.x.shape[1]))
    steepness = [
        np.linalg.norm(f.gradient(u) - f.gradient(w)) / np.linalg.norm(u - w) for u, w in zip(a, b, strict=True)
    ]
    assert max(steepness) <= f.L
    assert f.gap > 0
    # Far from the least value a chord lies below f.
    assert any(f.value((u + w) / 2) > (f.value(u) + f.value(w)) / 2 for u, w in zip(a, b, strict=True))


def test_fit_of_known_lines() -> None:
    found, error = slope([10, 20, 40], [[x**-0.5, 3 * x**-0.4] for x in (10, 20, 40)])
    assert found == pytest.approx(-0.45)
    assert error == pytest.approx(12.706 * 0.05, rel=1e-3)  # Student's t of 1 degree of freedom; 0.1 / 2 by hand


def test_a_run_repeats_and_waits_for_nobody() -> None:
    f = RobustRegression()
    setting = Setting(T=60, M=3, p=2, B=2)
    norm, delay = mean_squared_norm(f, setting, 5)
    assert (norm, delay) == mean_squared_norm(f, setting, 5)
    assert norm != mean_squared_norm(f, setting, 6)[0]
    assert delay >= 1
    assert setting.product == 720
    assert 0 < norm < np.sum(f.gradient(np.zeros(10)) ** 2)


@pytest.mark.slow
def test_more_work_has_smaller_gradients(tmp_path, capsys) -> None:
    picture = tmp_path / "rate.png"
    code = main(["--T", "250", "--doublings", "2", "--seeds", "2", "--tolerance", "0.25", "--json", "-o", str(picture)])
    found = json.loads(capsys.readouterr().out)
    assert [line["varied"] for line in found["lines"]] == ["T", "M", "p", "B"]
    assert code == 0
    for line in found["lines"]:
        assert -0.8 < line["slope"] < -0.2
        assert math.prod(line["settings"][-1].values()) == 4 * math.prod(line["settings"][0].values())
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_one_real_process_is_serial_sgd(tmp_path) -> None:
    """The runtime's own processes, against a loop: the same rows, rates and steps, and the norm at each v."""
    f = RobustRegression()
    setting = Setting(T=60, M=1, p=1, B=2)
    norm, delay = measured(f, setting, 3, tmp_path)
    rate = np.float32(equal_rates(f, MU, T=60, M=1, B_tilde=2))
    row, v, norms = Row(f, (3, 0, 0)), np.zeros(DIM, np.float32), []
    for _ in range(60):
        u = v.copy()
        for _ in range(2):
            u -= rate * row.gradient(u, lambda: False).astype(np.float32)
        v += rate * (u - v)
        norms.append(np.sum(f.gradient(v) ** 2))
    assert norm == pytest.approx(np.mean(norms), rel=1e-4)
    assert delay == 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_real_nodes_make_gradients_smaller(tmp_path, monkeypatch) -> None:
    f = RobustRegression()
    setting = Setting(T=100, M=2, p=2, B=2)
    found = measured(f, setting, 1, tmp_path)
    assert 0 < found[0] < np.sum(f.gradient(np.zeros(DIM)) ** 2)
    assert found[1] >= 1  # who does not wait is late now and then
    monkeypatch.setattr(rate_real, "execute", None)
    assert measured(f, setting, 1, tmp_path) == found  # kept


def test_norms_are_of_the_first_t_steps() -> None:
    f = RobustRegression()
    tracker = Norms(f, 2)
    a, b, c = np.random.default_rng(0).standard_normal((3, DIM)).astype(np.float32)
    tracker.measure(a, due=False)
    assert tracker.reached() is None
    tracker.measure(a, due=True)  # a checkpoint is no step
    tracker.measure(b, due=False)
    tracker.measure(c, due=False)
    expected = (np.sum(f.gradient(a) ** 2) + np.sum(f.gradient(b) ** 2)) / 2
    assert tracker.row(1.0) == {"gradient/mean_squared_norm": pytest.approx(expected)}
    assert tracker.reached() == "2 global steps"
