"""A torch module as a vector: v is all of its float32 parameters and buffers, one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ConfigError


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parts of v by name: parameters, then buffers. Also what no gradient moves: so all have the same.

    Raises:
        ConfigError: One of them is not float32, or has no shape yet.
    """
    found = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
            raise ConfigError(f"model: {name} has no shape yet: must have been called once")
        if isinstance(tensor, nn.Parameter) or tensor.is_floating_point() or tensor.is_complex():
            if tensor.dtype is not torch.float32 or tensor.device.type != "cpu":
                raise ConfigError(f"model: {name} is {tensor.dtype} on {tensor.device}, must be torch.float32 on cpu")
            found[name] = tensor
    if not any(tensor.requires_grad for tensor in found.values()):
        raise ConfigError("model: has no parameter that a gradient moves, must have one")
    return found


def to_vector(model: nn.Module) -> Vector:
    """V as a module has it, float32 [dim]."""
    vector: Vector = torch.cat([tensor.detach().reshape(-1) for tensor in tensors(model).values()]).numpy()
    return vector


def views(vector: Tensor, model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Each of `tensors`, and its part of a vector, float32 [dim], in its shape."""
    parts, begin = [], 0
    for tensor in tensors(model).values():
        parts.append((tensor, vector[begin : begin + tensor.numel()].view(tensor.shape)))
        begin += tensor.numel()
    return parts


def length(model: nn.Module) -> int:
    """Of v."""
    return sum(tensor.numel() for tensor in tensors(model).values())


def load(model: nn.Module, v: Vector) -> nn.Module:
    """Let a module have the values of v, float32 [dim]; gives it back.

    Raises:
        ConfigError: v has another length.
    """
    vector = torch.from_numpy(v.copy())
    if vector.numel() != (dim := length(model)):
        raise ConfigError(f"model: has {dim} numbers, must have {vector.numel()} as the checkpoint has")
    with torch.no_grad():
        for tensor, part in views(vector, model):
            tensor.copy_(part)
    return model
