"""Between a torch module and a weight file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Module

from exchange import tensors
from exchange.errors import TaskError


def model_file(module: Module, metadata: Mapping[str, str]) -> bytes:
    """Return the weight file of `module`: parameters and buffers; bfloat16 is kept as float32."""
    return tensors.dump(arrays_of(module.state_dict()), metadata)


def floating(module: Module) -> dict[str, NDArray[Any]]:
    """Return copies of the floating parameters and buffers by name: what travels."""
    state = module.state_dict()
    return arrays_of({name: tensor for name, tensor in state.items() if tensor.is_floating_point()})


def tied(module: Module) -> dict[str, str]:
    """Return, by each further name of a parameter of `module`, its first: the one that `named_parameters` gives."""
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    named = {name: first[id(parameter)] for name, parameter in module.named_parameters(remove_duplicate=False)}
    return {name: its_first for name, its_first in named.items() if name != its_first}


def load_into(module: Module, data: bytes) -> None:
    """Copy the weight file `data` into `module`, name by name.

    Raises:
        TaskError: the module has other tensors than the file, or whole numbers for floats: the model has changed.
        InvalidTensorFile: the file is unsound.
    """
    arrays = tensors.load(data)
    state = module.state_dict()
    if differences := _differences(arrays, state):
        lines = "\n".join(f"  {line}" for line in differences)
        raise TaskError(
            f"the task's model() is not the federation's global model:\n{lines}\n"
            "a federation keeps the model that it began with: take the task that made it, or begin another federation "
            "(`fedbucket run`: in another folder, --out)"
        )
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))


def arrays_of(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Return copies of tensors as arrays; bfloat16, which NumPy lacks, as float32, which holds all of its values."""
    found = {}
    for name, tensor in state.items():
        value = tensor.detach().cpu()
        found[name] = (value.float() if value.dtype == torch.bfloat16 else value).numpy().copy()
    return found


def _differences(arrays: Mapping[str, NDArray[Any]], state: Mapping[str, torch.Tensor]) -> list[str]:
    lines = []
    for name in sorted(arrays.keys() | state.keys()):
        expected = tuple(arrays[name].shape) if name in arrays else "absent"
        came = tuple(state[name].shape) if name in state else "absent"
        if expected != came:
            lines.append(f"{name}: expected {expected}, model() has {came}")
        elif np.issubdtype(arrays[name].dtype, np.floating) != state[name].is_floating_point():
            lines.append(f"{name}: expected {arrays[name].dtype}, model() has {state[name].dtype}")
    return lines
