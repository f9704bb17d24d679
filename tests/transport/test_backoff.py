"""How long one sleeps between two looks: by hand, and how late and how often one looks."""

from __future__ import annotations

import itertools

import pytest

from hsa2c.transport.backoff import FIRST_S, LAST_S, Backoff, expecting, unhurried


def sleeps(backoff: Backoff, number: int) -> list[float]:
    return [backoff.next_s() for _ in range(number)]


def test_twice_as_long_each_time() -> None:
    assert sleeps(Backoff(), 8) == pytest.approx([FIRST_S * 2**k for k in range(6)] + 2 * [LAST_S])


def test_half_of_what_it_took_last_time_at_once() -> None:
    # 80 ms: then an eighth of the time waited, 20 ms at most.
    assert sleeps(expecting(0.16), 4) == pytest.approx([0.08, 0.01, 0.01125, 0.01265625])
    assert sleeps(expecting(0.4), 3) == pytest.approx([0.2, 0.02, 0.02])
    assert sleeps(expecting(60.0), 2) == pytest.approx([0.25, 0.02]), "a minute was no measure"
    assert sleeps(expecting(0.0), 3) == pytest.approx([FIRST_S, 2 * FIRST_S, 4 * FIRST_S])


@pytest.mark.parametrize("takes_s", [0.001, 0.01, 0.06, 0.13, 0.5])
def test_as_expected_it_is_seen_soon_and_with_few_looks(takes_s: float) -> None:
    looks = list(itertools.accumulate(sleeps(expecting(takes_s), 200)))
    number = next(k for k, at in enumerate(looks, 1) if at >= takes_s)
    assert looks[number - 1] - takes_s <= max(LAST_S, takes_s / 7)
    assert number <= 16


def test_unhurried_from_1_ms_to_20() -> None:
    # 1 and 2 ms; then half of the time waited.
    expected = [0.001, 0.002, 0.002, 0.0025, 0.00375, 0.005625, 0.0084375, 0.01265625, 0.018984375, 0.02, 0.02]
    assert sleeps(unhurried(), 11) == pytest.approx(expected)


@pytest.mark.parametrize("takes_s", [0.001, 0.01, 0.03, 0.13, 0.5])
def test_unhurried_it_is_seen_in_time_and_with_fewer_looks(takes_s: float) -> None:
    looks = list(itertools.accumulate(sleeps(unhurried(), 200)))
    number = next(k for k, at in enumerate(looks, 1) if at >= takes_s)
    assert looks[number - 1] - takes_s <= min(max(LAST_S, takes_s / 2), 0.02)
    assert number <= 9 + takes_s / 0.02
