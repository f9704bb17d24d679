"""`hsa2c.agents.network.ActorCritic` and its gradient, operation by operation, for processes that act and learn.

The same function of the same weights, without a graph of what was computed: the weights are rounded once for each
update instead of once for each use, gradients are written to where they belong instead of being cleared, summed and
moved, and what the convolutions gave while acting can be learnt from. A test holds it to `ActorCritic` and automatic
differentiation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hsa2c.agents.network import (
    CONV1_STRIDE,
    CONV2_STRIDE,
    ActorCritic,
    grey_levels,
    initial_vector,
    num_parameters,
    parameter_views,
)
from hsa2c.agents.settings import OBSERVATION_SHAPE, Pixels, Precision

_WORTHWHILE = 0.9  # bfloat16 must take at most this share of float32's time: less is not worth its rounding
_MEASURE_S = 0.5
_CONVOLUTIONS = 4  # tensors: weights and biases of the two convolutions come first in the flat vector
_BODY = 6  # and those of the hidden layer

_convolution_backward = torch.ops.aten.convolution_backward.default
_relu_backward = torch.ops.aten.threshold_backward.default


class Levels(NamedTuple):
    """What n observations are looked at by; of the precision of the hidden layers."""

    zero: Tensor
    """[n, 1, 1, 1]: the grey level that becomes 0."""
    scale: Tensor
    """[n, 1, 1, 1]: what the first convolution of them is multiplied by."""

    def some(self, which: slice | NDArray[np.intp]) -> Levels:
        """Of some of the observations; not copied for a slice."""
        return Levels(*(tensor[which] for tensor in self))


class Features(NamedTuple):
    """What the convolutions made of n observations; of the precision of the hidden layers."""

    pixels: Tensor
    """[n, 4, 84, 84]: what went in, less the grey level that becomes 0."""
    zero: Tensor
    """See `Levels`."""
    scale: Tensor
    """See `Levels`."""
    conv1: Tensor
    """[n, 16, 20, 20], after ReLU."""
    conv2: Tensor
    """[n, 32, 9, 9], after ReLU."""

    def some(self, which: slice | NDArray[np.intp]) -> Features:
        """Of some of the observations; not copied for a slice."""
        return Features(*(tensor[which] for tensor in self))


Part = TypeVar("Part", Features, Levels)


def join(parts: Sequence[Part]) -> Part:
    """Those of all observations of several; not copied if there is one."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


class FastActorCritic:
    """The network of one process. Call `read` first.

    Args:
        num_actions: Of the game.
        pixels: See `hsa2c.agents.settings.AgentConfig.pixels`.
        precision: Of the hidden layers.

    Attributes:
        g: The gradient that `backward` computed last, float32 [dim].
        dtype: Of the hidden layers.
    """

    def __init__(self, num_actions: int, pixels: Pixels, precision: Precision) -> None:
        self._shapes = ActorCritic(num_actions, pixels)
        self._pixels = pixels
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.g = torch.zeros(num_parameters(self._shapes))
        self._gradients = parameter_views(self._shapes, self.g)
        views = parameter_views(self._shapes, torch.zeros_like(self.g))
        self._weights = [view.to(self.dtype) for view in views[:_BODY]] + views[_BODY:]

    @torch.no_grad()
    def read(self, flat: Tensor) -> None:
        """Take over the weights of a flat vector, float32 [dim]."""
        for mine, weight in zip(self._weights, parameter_views(self._shapes, flat), strict=True):
            mine.copy_(weight)

    def __call__(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """See `hsa2c.agents.network.ActorCritic.forward`."""
        logits, values, _ = self.heads(self.features(observations))
        return logits, values

    @torch.no_grad()
    def features(self, observations: Tensor) -> Features:
        """What the convolutions make of observations, uint8 [n, 4, 84, 84]."""
        zero, deviation = grey_levels(observations, self._pixels)
        return self.at(observations, Levels(zero.to(self.dtype), (1 / deviation).to(self.dtype)))

    @torch.no_grad()
    def at(self, observations: Tensor, levels: Levels) -> Features:
        """The same where their levels are known."""
        pixels = observations.to(self.dtype).sub_(levels.zero)
        w1, b1, w2, b2 = self._weights[:_CONVOLUTIONS]
        conv1 = functional.conv2d(pixels, w1, stride=CONV1_STRIDE)
        conv1.mul_(levels.scale).add_(b1[:, None, None]).relu_()
        conv2 = functional.conv2d(conv1, w2, b2, stride=CONV2_STRIDE).relu_()
        return Features(pixels, *levels, conv1, conv2)

    @torch.no_grad()
    def heads(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """The policy and the value, from features.

        Returns:
            Logits float32 [n, num_actions], values float32 [n], and the hidden layer, float32 [n, 256].
        """
        w_hidden, b_hidden, w_policy, b_policy, w_value, b_value = self._weights[_CONVOLUTIONS:]
        hidden = torch.addmm(b_hidden, features.conv2.flatten(1), w_hidden.t()).relu_().float()
        return torch.addmm(b_policy, hidden, w_policy.t()), torch.addmv(b_value, hidden, w_value[0]), hidden

    @torch.no_grad()
    def backward(self, features: Features, hidden: Tensor, to_logits: Tensor, to_values: Tensor) -> None:
        """The gradient of a loss with respect to all weights, into `g`.

        Args:
            features: Of the observations; of older weights of the convolutions if the gradient may be theirs.
            hidden: From `heads`, with the present weights.
            to_logits: The loss's gradient with respect to the logits, float32 [n, num_actions].
            to_values: The same for the values, float32 [n].
        """
        w1, _, w2, _, w_hidden, _, w_policy, _, w_value, _ = self._weights
        g1, gb1, g2, gb2, g_hidden, gb_hidden, g_policy, gb_policy, g_value, gb_value = self._gradients

        torch.mm(to_logits.t(), hidden, out=g_policy)
        torch.sum(to_logits, 0, out=gb_policy)
        torch.mv(hidden.t(), to_values, out=g_value[0])
        torch.sum(to_values, 0, keepdim=True, out=gb_value)

        to_hidden = (to_logits @ w_policy).addr_(to_values, w_value[0])
        to_hidden = _relu_backward(to_hidden, hidden, 0)
        torch.sum(to_hidden, 0, out=gb_hidden)
        to_hidden = to_hidden.to(self.dtype)
        g_hidden.copy_(to_hidden.t() @ features.conv2.flatten(1))

        to_conv2 = _relu_backward((to_hidden @ w_hidden).view_as(features.conv2), features.conv2, 0)
        to_conv1, here, here_bias = _backward(to_conv2, features.conv1, w2, CONV2_STRIDE, first=False)
        g2.copy_(here)
        gb2.copy_(here_bias)

        to_conv1 = _relu_backward(to_conv1, features.conv1, 0)
        gb1.copy_(to_conv1.sum((0, 2, 3)))
        _, here, _ = _backward(to_conv1.mul_(features.scale), features.pixels, w1, CONV1_STRIDE, first=True)
        g1.copy_(here)


def _backward(
    to_output: Tensor, seen: Tensor, weight: Tensor, stride: int, *, first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a convolution with respect to its input, weight and bias; of the first, only the weight's."""
    others = not first
    gradients: tuple[Tensor, Tensor, Tensor] = _convolution_backward(
        to_output,
        seen,
        weight,
        [len(weight)] if others else None,
        [stride, stride],
        [0, 0],  # padding
        [1, 1],  # dilation
        False,  # transposed
        [0, 0],
        1,  # groups
        [others, True, others],
    )
    return gradients


def time_update_s(network: FastActorCritic, observations: Tensor) -> float:
    """Seconds of one forward and backward."""
    begin = time.perf_counter()
    features = network.features(observations)
    logits, values, hidden = network.heads(features)
    network.backward(features, hidden, torch.ones_like(logits), torch.ones_like(values))
    return time.perf_counter() - begin


def choose_precision(
    num_actions: int,
    pixels: Pixels,
    batch: int,
    *,
    time_s: Callable[[FastActorCritic, Tensor], float] = time_update_s,
) -> Precision:
    """The faster precision of forward and backward here and now, float32 unless bfloat16 is at least 10 % faster.

    Takes well under a second. It is a measurement: two hosts, or two runs, may choose differently, so a run should
    keep what it was given.

    Args:
        num_actions: Of the game.
        pixels: See `hsa2c.agents.settings.AgentConfig.pixels`.
        batch: Samples of one update.
        time_s: What one update takes.
    """
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    networks = {precision: FastActorCritic(num_actions, pixels, precision) for precision in precisions}
    flat = initial_vector(num_actions, seed=0)
    for network in networks.values():
        network.read(flat)
    observations = torch.full((batch, *OBSERVATION_SHAPE), 128, dtype=torch.uint8)
    best = dict.fromkeys(precisions, math.inf)
    begin = time.perf_counter()
    for trial in range(6):
        for precision, seconds in best.items():
            now = time_s(networks[precision], observations)
            if trial > 0:  # the first of each prepares kernels
                best[precision] = min(seconds, now)
        if trial > 0 and time.perf_counter() - begin > _MEASURE_S:
            break
    return "bfloat16" if best["bfloat16"] <= _WORTHWHILE * best["float32"] else "float32"
