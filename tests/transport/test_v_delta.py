"""Nodes that follow v_hat by steps, whole vectors or nothing have it to the last bit, in whatever order they ask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.transport.codec import BLOCK, Encoding
from hsa2c.transport.v_delta import Answer, Serving, What, follow

DIM = BLOCK + 5
LOSSY = (Encoding.BFLOAT16, Encoding.INT8)


class Node:
    def __init__(self) -> None:
        self.v, self.t = np.full(DIM, np.nan, np.float32), -1

    def take(self, answer: Answer, t: int) -> None:
        if answer.what is What.WHOLE:
            assert answer.numbers is not None
            assert answer.numbers.encoding is Encoding.FLOAT32
            self.v[:] = answer.numbers.decode()
        elif answer.what is What.STEP:
            assert answer.numbers is not None
            follow(self.v, answer.numbers)
        self.t = t


def start() -> np.ndarray:
    return np.random.default_rng(7).standard_normal(DIM).astype(np.float32)


#: A global step (None), or a pull of a node, whose answer it may take in much later, or (-1 - node) a new node there.
MOVES = st.lists(st.one_of(st.none(), st.integers(-3, 2)), min_size=1, max_size=40)


@settings(max_examples=60)
@given(MOVES, st.sampled_from(list(Encoding)), st.integers(0, 1000))
def test_every_node_has_v_hat(moves: list[int | None], encoding: Encoding, seed: int) -> None:
    draw = np.random.default_rng(seed)
    serving, v, t = Serving(encoding), start(), 3
    nodes = [Node() for _ in range(3)]
    under_way: list[tuple[Node, Answer, int]] = []
    served: dict[int, bytes] = {}
    largest = 0.0
    for move in [*moves, 0, 1, 2]:
        if move is None:
            change = draw.standard_normal(DIM).astype(np.float32) * np.float32(1e-3)
            largest += float(np.abs(change).max())
            v += change
            t += 1
            continue
        node = nodes[-1 - move if move < 0 else move]
        for one, answer, at in [item for item in under_way if item[0] is node]:  # it reads before it asks again
            one.take(answer, at)
            assert one.v.tobytes() == served[at], "what is under way must not change"
            under_way.remove((one, answer, at))
        if move < 0:
            node.v, node.t = np.full(DIM, np.nan, np.float32), -1  # another process in its place
        answer = serving.answer(v, t, node.t)
        v_hat = serving.v_hat
        assert v_hat is not None
        assert served.setdefault(t, v_hat.tobytes()) == v_hat.tobytes(), "one v_hat for each t"
        if encoding is Encoding.FLOAT32:
            assert v_hat.tobytes() == v.tobytes()
        assert np.abs(v_hat - v).max() <= largest / 250 + 1e-6, "one rounding of what is new"
        under_way.append((node, answer, t))
    for node, answer, at in under_way:
        node.take(answer, at)
        assert node.v.tobytes() == served[at]


@pytest.mark.parametrize("encoding", LOSSY)
def test_who_gets_what(encoding: Encoding) -> None:
    serving, v = Serving(encoding), start()
    assert serving.answer(v, 0, -1).what is What.WHOLE
    assert serving.answer(v, 0, 0).what is What.SAME
    v += 1e-3
    answer = serving.answer(v, 1, 0)
    assert answer.what is What.STEP
    assert answer.numbers is not None
    assert answer.numbers.encoding is encoding
    assert [serving.answer(v, 1, has).what for has in (0, 1, -1)] == [What.STEP, What.SAME, What.WHOLE]
    v += 1e-3
    assert [serving.answer(v, 4, has).what for has in (1, 0)] == [What.STEP, What.WHOLE]  # nobody pulled 2 and 3
    v += 1e-3
    whole = serving.answer(v, 5, 1)  # it is three steps behind: no step would serve it
    assert whole.what is What.WHOLE
    assert whole.numbers is not None
    assert whole.numbers.decode().tobytes() == v.tobytes()
    assert serving.answer(v, 5, 4).what is What.WHOLE


@pytest.mark.parametrize("encoding", LOSSY)
def test_rounding_does_not_add_up(encoding: Encoding) -> None:
    serving, v, node = Serving(encoding), start(), Node()
    for t in range(200):
        node.take(serving.answer(v, t, node.t), t)
        v += 1e-3 * np.sin(np.arange(DIM) + t).astype(np.float32)
    assert np.abs(node.v - v).max() < 2.1e-3, "no more than the last step and its rounding"
    node.take(serving.answer(v, 200, node.t), 200)
    assert np.abs(node.v - v).max() < 1e-3 / 100


def test_memory_is_reused_where_nothing_is_under_way() -> None:
    serving, v = Serving(Encoding.BFLOAT16), start()
    serving.answer(v, 0, -1)
    serving.answer(v, 1, 0)
    first = serving.v_hat
    serving.answer(v, 2, 1)
    assert serving.v_hat is first
    serving.answer(v, 2, -1)
    serving.answer(v, 3, 2)
    assert serving.v_hat is not first
