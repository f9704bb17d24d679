"""Encodings against a slow reference, one entry at a time, and error feedback against the sum that it must keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsa2c.transport.codec import BLOCK, Encoding, Feedback, encode, finite, fits, plain

LOSSY = (Encoding.BFLOAT16, Encoding.INT8)
SIZES = (1, 2, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 16 * BLOCK, 17 * BLOCK + 3)


def vector(seed: int, size: int, spread: float = 12.0) -> np.ndarray:
    """Numbers of very different sizes, some zeros and negative zeros."""
    draw = np.random.default_rng(seed)
    w = draw.standard_normal(size) * 10.0 ** draw.uniform(-spread, 3.0, size)
    w[draw.random(size) < 0.1] *= 0
    return w.astype(np.float32)


def slow(w: np.ndarray, encoding: Encoding) -> np.ndarray:
    """What arrives, by the table in `codec`."""
    blocks = [w[start : start + BLOCK] for start in range(0, w.size, BLOCK)]
    return np.array([_slow(x, block, encoding) for block in blocks for x in block.tolist()], np.float32)


def _slow(x: float, block: np.ndarray, encoding: Encoding) -> float:
    largest = float(np.abs(block).max())
    if largest == 0:
        return x
    if encoding is Encoding.INT8:
        s = np.float32(largest) / np.float32(127)
        inverse = np.float32(1) / s
        return float(np.float32(round(float(np.float32(x) * inverse))) * s) + 0.0
    if x == 0:
        return x
    mantissa, exponent = math.frexp(abs(x))  # bfloat16 has 8 bits of mantissa; ties go away from 0
    return math.copysign(math.ldexp(math.floor(math.ldexp(mantissa, 8) + 0.5), exponent - 8), x)


@pytest.mark.parametrize("encoding", LOSSY)
@pytest.mark.parametrize("size", SIZES)
def test_slow_reference(encoding: Encoding, size: int) -> None:
    w = vector(size, size, spread=4.0)
    encoded = encode(w, encoding)
    assert (encoded.encoding, encoded.dim, encoded.data.size) == (encoding, size, encoding.size(size))
    np.testing.assert_array_equal(encoded.decode(), slow(w, encoding))
    out = np.full(size, np.nan, np.float32)
    assert encoded.decode(out) is out
    np.testing.assert_array_equal(out, encoded.decode())
    total = vector(size + 1, size, spread=4.0)
    expected = total + out
    encoded.add_to(total)
    np.testing.assert_array_equal(total, expected)


def test_by_hand() -> None:
    w = np.array([1.0, -2.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], np.float32)
    codes = encode(w, Encoding.BFLOAT16).data.view(np.uint16)
    assert [hex(code) for code in codes] == ["0x3f80", "0xc000", "0x3f81", "0x3f82", "0x3f81"]  # ties away from 0

    encoded = encode(np.array([1.27, -0.634, 0.006], np.float32), Encoding.INT8)
    assert encoded.data[:4].view(np.float32)[0] == np.float32(0.01)
    assert encoded.data[4:].view(np.int8).tolist() == [127, -63, 1]

    assert Encoding.BFLOAT16.size(676_000) == 2 * 676_000
    assert Encoding.INT8.size(676_000) == 676_000 + 4 * 166


@given(st.integers(0, 2**32), st.sampled_from(SIZES), st.sampled_from(LOSSY), st.floats(-25.0, 5.0))
def test_rounding_is_bounded(seed: int, size: int, encoding: Encoding, power: float) -> None:
    w = vector(seed, size) * np.float32(10.0**power)
    error = np.abs(encode(w, encoding).decode().astype(np.float64) - w)
    tiny = 2.0**-133  # half of what a bfloat16 steps by next to 0; an int8 scale below 2^-126 is 0
    for start in range(0, size, BLOCK):
        block, found = np.abs(w[start : start + BLOCK]), error[start : start + BLOCK]
        largest = float(block.max())
        bound = {
            Encoding.BFLOAT16: np.maximum(block * 2.0**-8, tiny),
            Encoding.INT8: largest / 254 * (1 + 1e-5) if largest >= 127 * 2.0**-126 else largest,
        }[encoding]
        assert (found <= bound).all()


@given(st.lists(st.floats(width=32), min_size=1, max_size=20), st.sampled_from(LOSSY))
def test_whatever_cannot_be_encoded_goes_as_it_is(numbers: list[float], encoding: Encoding) -> None:
    w = np.array(numbers, np.float32)
    feedback = Feedback(encoding)
    for encoded in (encode(w, encoding), feedback.encode(w)):
        if np.isfinite(w).all() and np.linalg.norm(w.astype(np.float64)) < 2.0**28:
            assert encoded.encoding is encoding
            assert np.isfinite(encoded.decode()).all()
        elif encoded.encoding is Encoding.FLOAT32:
            assert encoded.decode().tobytes() == w.tobytes()
            assert not fits(w)
    assert finite(w) == np.isfinite(w).all()
    assert np.isfinite(feedback.encode(np.zeros(w.size, np.float32)).decode()).all()  # nothing bad was kept


@pytest.mark.parametrize("encoding", LOSSY)
def test_feedback_loses_nothing(encoding: Encoding) -> None:
    """What has arrived, and what is left, are what was pushed; a delta that is not finite changes neither."""
    size = 2 * BLOCK + 77
    feedback, pushed, arrived = Feedback(encoding), np.zeros(size), np.zeros(size)
    for n in range(30):
        w = vector(n, size, spread=3.0) * np.float32(1e-5)
        bad = w.copy()
        bad[n] = (np.nan, np.inf, -np.inf)[n % 3]
        assert feedback.encode(bad).decode().tobytes() == bad.tobytes()
        arrived += feedback.encode(w).decode()
        pushed += w
    # One rounding, though there were thirty: a delta without feedback would have lost the sum of theirs.
    largest = 1.5 * 1e-5 * max(np.abs(vector(n, size, spread=3.0)).max() for n in range(30))
    bound = {Encoding.BFLOAT16: 2.0**-8, Encoding.INT8: 1 / 250}[encoding] * largest
    assert np.abs(pushed - arrived).max() <= bound


def test_feedback_of_float32_is_the_delta() -> None:
    w = vector(0, 5)
    feedback = Feedback(Encoding.FLOAT32)
    assert np.shares_memory(feedback.encode(w).data, w)
    assert np.shares_memory(plain(w).decode(), w)


def test_small_entries_arrive_by_feedback_alone() -> None:
    """With one large entry in its block, int8 rounds 0.001 to 0: it comes as 1/127 now and then."""
    w = np.full(BLOCK, 1e-3, np.float32)
    w[0] = 1.0
    assert (encode(w, Encoding.INT8).decode()[1:] == 0).all()
    feedback = Feedback(Encoding.INT8)
    total = sum(feedback.encode(w).decode().astype(np.float64) for _ in range(100))
    np.testing.assert_allclose(total, 100 * w, atol=1 / 127)


@pytest.mark.parametrize("encoding", LOSSY)
def test_quadratic_converges_as_without_rounding(encoding: Encoding) -> None:
    """Gradient descent on sum_i h_i (v_i - 1)^2 / 2 with h from 1 to 0.01: rounded deltas end where exact ones do."""
    size = BLOCK + 10
    h = np.geomspace(1, 0.01, size).astype(np.float32)
    ends = {}
    for kind in (Encoding.FLOAT32, encoding):
        feedback, v = Feedback(kind), np.zeros(size, np.float32)
        for _ in range(1500):
            v += feedback.encode(0.5 * h * (1 - v)).decode()
        ends[kind] = v
    assert np.abs(ends[Encoding.FLOAT32] - 1).max() < 1e-3
    np.testing.assert_allclose(ends[encoding], ends[Encoding.FLOAT32], atol=1e-4)


def test_finite_check_is_right_where_squares_overflow() -> None:
    large = np.full(1000, 3e38, np.float32)
    assert finite(large)
    large[7] = np.inf
    assert not finite(large)
    assert not finite(np.array([1, np.nan], np.float32))
    assert finite(np.zeros(0, np.float32))
