"""The shared optimiser is torch.optim, its state is the flat shared vector, and several may share it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hsa2c.errors import ProblemError
from hsa2c.node.optimiser import Rule, SharedOptimiser

SHAPES = ((3, 4), (5,), ())
DIM = 18
RULES = {
    "sgd": Rule(name="sgd", learning_rate=0.1),
    "rmsprop": Rule(name="rmsprop", learning_rate=0.01, decay=0.9, epsilon=1e-3),
    "adam": Rule(name="adam", learning_rate=0.01, beta1=0.8, beta2=0.75, epsilon=1e-4),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def textbook(rule: Rule, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    if rule.name == "sgd":
        return torch.optim.SGD(parameters, lr=rule.learning_rate)
    if rule.name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rule.learning_rate, alpha=rule.decay, eps=rule.epsilon)
    return torch.optim.Adam(parameters, lr=rule.learning_rate, betas=(rule.beta1, rule.beta2), eps=rule.epsilon)


def gradients(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(DIM, generator=generator) * 10 ** (n % 5 - 3) for n in range(count)]


def start() -> torch.Tensor:
    return torch.linspace(-1, 1, DIM)


def split(flat: torch.Tensor) -> list[torch.Tensor]:
    sizes = [torch.Size(shape).numel() for shape in SHAPES]
    return [part.view(shape).clone() for part, shape in zip(flat.split(sizes), SHAPES, strict=True)]


@every_rule
def test_equals_torch_on_ordinary_parameters(rule: Rule) -> None:
    parameters = split(start())
    reference = textbook(rule, parameters)
    u = start()
    optimiser = SharedOptimiser(u, torch.zeros(rule.state_size(DIM)), rule)
    for n, g in enumerate(gradients(60)):
        scale = 1.0 - n / 100
        optimiser.scale_rate(scale)
        reference.param_groups[0]["lr"] = rule.learning_rate * scale
        for parameter, part in zip(parameters, split(g), strict=True):
            parameter.grad = part
        reference.step()
        optimiser.step(g)
        torch.testing.assert_close(u, torch.cat([p.reshape(-1) for p in parameters]), rtol=2e-5, atol=1e-6)
    assert not torch.allclose(u, start(), atol=0.05)


@every_rule
def test_equals_torch_to_the_bit(rule: Rule) -> None:
    """Where torch is told to compute in one pass, as here."""
    parameter = start()
    reference = textbook(rule, [parameter])
    reference.param_groups[0].update({"adam": {"fused": True}, "rmsprop": {"foreach": False}}.get(rule.name, {}))
    u = start()
    optimiser = SharedOptimiser(u, torch.zeros(rule.state_size(DIM)), rule)
    for g in gradients(30):
        parameter.grad = g
        reference.step()
        optimiser.step(g)
        assert torch.equal(u, parameter)


@pytest.mark.slow
def test_loads_no_compiler() -> None:
    program = """
import sys, torch
from hsa2c.errors import ProblemError
from hsa2c.node.optimiser import Rule, SharedOptimiser
for name in ("sgd", "rmsprop", "adam"):
    rule = Rule(name=name, learning_rate=0.1)
    SharedOptimiser(torch.zeros(3), torch.zeros(rule.state_size(3)), rule).step(torch.ones(3))
print("torch._dynamo" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert run.stdout == "False\n"


@every_rule
def test_gradient_is_left_alone(rule: Rule) -> None:
    (g,) = gradients(1)
    kept = g.clone()
    SharedOptimiser(start(), torch.zeros(rule.state_size(DIM)), rule).step(g)
    assert torch.equal(g, kept)


@pytest.mark.parametrize(
    ("name", "moved", "state"),
    [
        ("sgd", 0.1 * 2, []),
        # mean square (1 - 0.99) * 4; 0.1 * 2 / (0.2 + 0.3)
        ("rmsprop", 0.4, [0.04, 1]),
        # both means corrected for their start at 0: 2 and 4; 0.1 * 2 / (2 + 0.3)
        ("adam", 0.2 / 2.3, [0.2, 0.004, 1]),
    ],
)
def test_first_update_by_hand(name: str, moved: float, state: list[float]) -> None:
    rule = Rule(name=name, learning_rate=0.1, epsilon=0.3)
    u, flat = torch.tensor([5.0]), torch.zeros(rule.state_size(1))
    SharedOptimiser(u, flat, rule).step(torch.tensor([2.0]))
    assert u.item() == pytest.approx(5 - moved, rel=1e-6)
    assert flat.tolist() == pytest.approx(state, rel=1e-6)


@every_rule
def test_state_size(rule: Rule) -> None:
    assert rule.state_size(DIM) == {"sgd": 0, "rmsprop": DIM + 1, "adam": 2 * DIM + 1}[rule.name]


@every_rule
def test_two_on_the_same_memory_continue_each_other(rule: Rule) -> None:
    """As the processes of a node do; here they take turns, so the result is that of one."""
    alone, both = start(), start()
    state_alone, state_both = torch.zeros(rule.state_size(DIM)), torch.zeros(rule.state_size(DIM))
    one = SharedOptimiser(alone, state_alone, rule)
    pair = [SharedOptimiser(both, state_both, rule) for _ in range(2)]
    for n, g in enumerate(gradients(20)):
        one.step(g)
        pair[n % 2].step(g)
    assert torch.equal(alone, both)
    assert torch.equal(state_alone, state_both)
    if rule.name != "sgd":
        assert state_both[-1] == 20


@every_rule
def test_state_vector_is_all_there_is_to_keep(rule: Rule) -> None:
    """Ten updates, a copy of u and state, ten more: as twenty."""
    u, state = start(), torch.zeros(rule.state_size(DIM))
    optimiser = SharedOptimiser(u, state, rule)
    for g in gradients(20)[:10]:
        optimiser.step(g)
    u_2, state_2 = u.clone(), state.clone()
    resumed = SharedOptimiser(u_2, state_2, rule)
    for g in gradients(20)[10:]:
        optimiser.step(g)
        resumed.step(g)
    assert torch.equal(u, u_2)
    assert torch.equal(state, state_2)


@every_rule
def test_rate_scale_is_of_the_rule_not_of_the_last_scale(rule: Rule) -> None:
    scaled, fresh = start(), start()
    optimiser = SharedOptimiser(scaled, torch.zeros(rule.state_size(DIM)), rule)
    for scale in (0.0, 0.5, 0.25):
        optimiser.scale_rate(scale)
    (g,) = gradients(1)
    optimiser.step(g)
    once = SharedOptimiser(fresh, torch.zeros(rule.state_size(DIM)), rule)
    once.scale_rate(0.25)
    once.step(g)
    assert torch.equal(scaled, fresh)
    assert not torch.equal(scaled, start())


@every_rule
def test_rate_zero_moves_nothing(rule: Rule) -> None:
    u = start()
    optimiser = SharedOptimiser(u, torch.zeros(rule.state_size(DIM)), rule)
    optimiser.scale_rate(0.0)
    for g in gradients(3):
        optimiser.step(g)
    assert torch.equal(u, start())


@every_rule
@pytest.mark.parametrize(
    "g", [torch.ones(DIM - 1), torch.ones(DIM, dtype=torch.float64), torch.ones(DIM, 1), torch.ones(2 * DIM)[::2]]
)
def test_a_gradient_unlike_u_is_refused(rule, g):
    u, state = start(), torch.zeros(rule.state_size(DIM))
    with pytest.raises(ProblemError, match="a gradient is"):
        SharedOptimiser(u, state, rule).step(g)
    assert torch.equal(u, start())
    assert not state.any()


@every_rule
def test_a_state_of_another_length_is_refused(rule):
    with pytest.raises(ProblemError, match="the optimiser's state is"):
        SharedOptimiser(start(), torch.zeros(rule.state_size(DIM) + 1), rule)
