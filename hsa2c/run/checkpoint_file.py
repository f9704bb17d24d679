"""A checkpoint's file: what is in it, how it is written and read. Where files lie is `hsa2c.run.checkpoint`'s.

==========================  ==================================================================================
tensor ``v``                float32 [dim], the global parameter
tensor ``momentum``         float32 [dim], the global step's velocity; left out where it is zero throughout
tensors ``optimiser/N``     float32 [state_dim], one for each node, N from 000000
metadata ``checkpoint``     JSON: format, t, counters, config, identity
metadata ``sha256``         digest of that JSON and of every tensor's name, type, shape and bytes
==========================  ==================================================================================

safetensors checks its header's layout but not its data; the digest covers what was parsed from both, so whatever byte
is damaged, the file is refused or means what it meant. No pickle: a checkpoint from elsewhere cannot run code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from hsa2c.errors import CheckpointError, HSA2CError

Vector = npt.NDArray[np.float32]

FORMAT = 1
"""Version of the layout above. A reader refuses versions it does not know."""

_OPTIMISER = "optimiser/"
_MAX_HEADER_BYTES = 16 * 2**20  # room for 100,000 nodes' states; a larger claim is damage, not a checkpoint


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """What a run needs to go on as if it had not stopped."""

    v: Vector
    """The global parameter, float32 [dim]. Finite."""

    momentum: Vector
    """The global step's velocity, float32 [dim]; zeros where the momentum is 0. Finite."""

    optimiser_states: tuple[Vector, ...]
    """The local optimiser's state of each node, float32 [state_dim]; empty in a best checkpoint."""

    t: int
    """Global steps done."""

    counters: Mapping[str, Any]
    """What a run counts over its sessions, as JSON values: work, updates, seconds."""

    config: Mapping[str, Any]
    """The resolved configuration, as plain values."""

    identity: Mapping[str, str]
    """What must be equal for the parameter to mean the same: application, network, what is learnt from."""


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Returns:
        The checkpoint, bit for bit as saved; JSON's types in the mappings (a tuple has become a list).

    Raises:
        CheckpointError: One line: the file is missing, unreadable, damaged, no checkpoint of this project, of an
            unknown format, or its arrays are not finite float32 vectors of matching sizes.
    """
    try:
        _check_layout(path)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            about = _parse(path, metadata)
            tensors: dict[str, Vector] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, TypeError) as error:  # TypeError: a type that numpy does not have
        raise CheckpointError(f"{path}: damaged: {' '.join(str(error).split())}") from None
    if digest_of(metadata["checkpoint"], tensors) != metadata.get("sha256"):
        raise CheckpointError(f"{path}: damaged: its content does not match its sha256")
    checkpoint = _assemble(path, about, tensors)
    if fault := _fault(checkpoint):
        raise CheckpointError(f"{path}: {fault}")
    return checkpoint


def read_identity(path: Path) -> dict[str, str]:
    """A checkpoint's `Checkpoint.identity`, without its arrays; empty where it cannot be read."""
    try:
        _check_layout(path)
        with safe_open(path, framework="numpy") as file:
            return dict(_parse(path, file.metadata() or {})["identity"])
    except (OSError, SafetensorError, CheckpointError):
        return {}


def encode(path: Path, checkpoint: Checkpoint) -> bytes:
    """A file's content; arrays are copied first, so they may be live shared memory.

    Args:
        path: Where it will be written, for messages.
        checkpoint: What to write.

    Raises:
        HSA2CError: The checkpoint cannot be one: wrong shapes, not finite, not JSON.
    """
    # Copies, since actor-learners may be writing: what is checked, digested and written must be the same bytes.
    checkpoint = dataclasses.replace(
        checkpoint,
        v=np.array(checkpoint.v, order="C"),
        momentum=np.array(checkpoint.momentum, order="C"),
        optimiser_states=tuple(np.array(state, order="C") for state in checkpoint.optimiser_states),
    )
    if fault := _fault(checkpoint):
        raise HSA2CError(f"{path}: not saved: {fault}")
    about = {"format": FORMAT, "t": checkpoint.t, "counters": dict(checkpoint.counters)}
    about |= {"config": dict(checkpoint.config), "identity": dict(checkpoint.identity)}
    try:
        text = json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise HSA2CError(f"{path}: not saved: counters, config or identity are not JSON: {error}") from None

    tensors = {"v": checkpoint.v}
    if checkpoint.momentum.view(np.uint32).any():  # of the bits: -0.0 must come back as -0.0
        tensors["momentum"] = checkpoint.momentum
    tensors |= {f"{_OPTIMISER}{node:06d}": state for node, state in enumerate(checkpoint.optimiser_states)}
    content = to_safetensors(tensors, metadata={"checkpoint": text, "sha256": digest_of(text, tensors)})
    if (length := _header_bytes(content)) > _MAX_HEADER_BYTES:
        raise HSA2CError(f"{path}: not saved: its header of {length} bytes is above {_MAX_HEADER_BYTES}")
    return content


def _assemble(path: Path, about: Mapping[str, Any], tensors: Mapping[str, Vector]) -> Checkpoint:
    """The checkpoint that verified metadata and tensors stand for."""
    nodes = sum(name.startswith(_OPTIMISER) for name in tensors)
    states = [f"{_OPTIMISER}{node:06d}" for node in range(nodes)]
    if "v" not in tensors or tensors.keys() - {"momentum"} != {"v", *states}:
        raise CheckpointError(f"{path}: not a checkpoint of this project: its tensors are {', '.join(sorted(tensors))}")
    return Checkpoint(
        v=tensors["v"],
        momentum=tensors["momentum"] if "momentum" in tensors else np.zeros(tensors["v"].shape, np.float32),
        optimiser_states=tuple(tensors[name] for name in states),
        t=about["t"],
        counters=about["counters"],
        config=about["config"],
        identity=about["identity"],
    )


def _check_layout(path: Path) -> None:
    """Refuse what is no regular file, or claims a header that it cannot hold, before anything is allocated for it."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: not a regular file")
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8:
        raise CheckpointError(f"{path}: damaged: {status.st_size} bytes are too few for a checkpoint")
    if (length := _header_bytes(start)) > min(status.st_size - 8, _MAX_HEADER_BYTES):
        raise CheckpointError(f"{path}: damaged: {status.st_size} bytes that claim a header of {length}")


def _header_bytes(content: bytes) -> int:
    """Length of a safetensors header: the first eight bytes, little-endian."""
    return int.from_bytes(content[:8], "little")


def _parse(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The metadata's JSON, its types checked."""
    if "checkpoint" not in metadata:
        raise CheckpointError(f"{path}: not a checkpoint of this project: its metadata lack 'checkpoint'")
    try:
        about = json.loads(metadata["checkpoint"])
        json.dumps(about, allow_nan=False)  # 1e400 is JSON, and no number that could be written again
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: its metadata are not JSON: {error}") from None
    version = about.get("format") if isinstance(about, dict) else None
    if version != FORMAT:
        raise CheckpointError(f"{path}: format {version!r} is unknown; this version reads {FORMAT}")
    for name, kind in {"t": int, "counters": dict, "config": dict, "identity": dict}.items():
        if type(about.get(name)) is not kind:
            raise CheckpointError(f"{path}: damaged: its metadata lack {name} ({kind.__name__})")
    return dict(about)


def digest_of(text: str, tensors: Mapping[str, Vector]) -> str:
    """SHA-256 over the JSON and over every tensor's name, type, shape and bytes, in the order of names."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype.str} {tensor.shape}\0".encode())
        digest.update(tensor.data)
    return digest.hexdigest()


def _fault(checkpoint: Checkpoint) -> str | None:
    """What makes this no checkpoint, in a few words; None if nothing does."""
    arrays = {"v": checkpoint.v, "momentum": checkpoint.momentum}
    arrays |= {f"optimiser state {node}": state for node, state in enumerate(checkpoint.optimiser_states)}
    for name, array in arrays.items():
        like = arrays["optimiser state 0"] if name.startswith("optimiser") else checkpoint.v
        if array.dtype != np.float32 or array.ndim != 1:
            return f"{name} is {array.dtype} {list(array.shape)}, must be a float32 vector"
        if array.shape != like.shape:
            return f"{name} has {array.size} entries, must have {like.size}"
    for name in ("v", "momentum"):
        if bad := int(np.count_nonzero(~np.isfinite(arrays[name]))):
            return f"{name} has {bad} of {arrays[name].size} entries that are not finite"
    if checkpoint.t < 0:
        return f"t is {checkpoint.t}, must not be negative"
    if wrong := [f"{k}: {v!r}" for k, v in checkpoint.identity.items() if not isinstance(v, str)]:
        return f"identity holds {wrong[0]}, must be text"
    return None
