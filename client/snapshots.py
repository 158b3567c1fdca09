"""Between a training loop in torch and its checkpoints: every tensor that it takes to go on with the same bytes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from client.checkpoints import Checkpoint, Saves
from client.weights import arrays_of


def tensors_of(module: Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name, also those buffers that weight files leave out."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def snapshot(tensors: Mapping[str, Tensor], optimizer: Optimizer | None, place: Mapping[str, Any]) -> Checkpoint:
    """Return where training stands.

    Args:
        tensors: what it changes, by name.
        optimizer: whose state goes with them.
        place: how far it has come.
    """
    found = {f"weights/{name}": tensor for name, tensor in tensors.items()}
    found |= {f"random/{kind}": state for kind, state in _random_states(tensors).items()}
    if optimizer is not None:
        for index, state in optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{index}/{name}": value for name, value in state.items() if value is not None}
    return Checkpoint(arrays_of(found), place)


def resume(saves: Saves, tensors: Mapping[str, Tensor], optimizer: Optimizer | None) -> Mapping[str, Any]:
    """Put `tensors`, `optimizer` and torch's random numbers back where training was left off.

    Returns:
        How far it had come; empty if it was not begun, and then nothing is changed.
    """
    if (checkpoint := saves.latest()) is None:
        return {}
    found = {name: torch.from_numpy(array.copy()) for name, array in checkpoint.arrays.items()}
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(found[f"weights/{name}"])
    if optimizer is not None:
        _resume_optimizer(optimizer, found)
    for kind in _random_states(tensors):
        if f"random/{kind}" in found:  # otherwise it was saved where there is no such device
            _set_random_state(kind, found[f"random/{kind}"], tensors)
    return checkpoint.place


def _resume_optimizer(optimizer: Optimizer, found: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in found.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _device(tensors: Mapping[str, Tensor]) -> torch.device:
    return next(iter(tensors.values())).device


def _random_states(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    match (device := _device(tensors)).type:
        case "cuda":
            states["cuda"] = torch.cuda.get_rng_state(device)
        case "mps":
            states["mps"] = torch.mps.get_rng_state()
    return states


def _set_random_state(kind: str, state: Tensor, tensors: Mapping[str, Tensor]) -> None:
    match kind:
        case "cpu":
            torch.set_rng_state(state)
        case "cuda":
            torch.cuda.set_rng_state(state, _device(tensors))
        case "mps":
            torch.mps.set_rng_state(state)
