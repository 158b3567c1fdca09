"""fedbucket: federated learning as a service, with no servers."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module

__version__ = "0.1.0"


def load(path: str | Path, task: str | Path) -> "Module":
    """Return the task's torch module with the weights of a model file, in evaluation mode.

    Args:
        path: a weight file, such as runs/demo/model.safetensors.
        task: the task's Python file.

    Raises:
        TaskError: the task fails, or its model has other tensors than the file.
        InvalidTensorFile: the file is unsound.
    """
    from client.task import load_task  # here and not above: it imports torch
    from client.weights import load_into

    module = load_task(Path(task)).model(seed=0)
    load_into(module, Path(path).read_bytes())
    return module.eval()
