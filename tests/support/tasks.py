"""An organisation's task, as a file: a linear model of two inputs, and data from a NumPy archive."""

from pathlib import Path
from textwrap import dedent

import numpy as np

from client.task import Task, load_task

TASK = """
import numpy as np
import torch
from torch.utils.data import TensorDataset

def model():
    return torch.nn.Linear(2, 3)

def data(source, split):
    with np.load(source) as arrays:
        if f"{split}_inputs" not in arrays:
            return None
        return TensorDataset(torch.from_numpy(arrays[f"{split}_inputs"]), torch.from_numpy(arrays[f"{split}_targets"]))
"""


def write_task(folder: Path, *more: str, name: str = "task.py") -> Path:
    """Write the task and `more` after it, which may define its functions anew; return its path."""
    path = folder / name
    path.write_text("\n".join([TASK, *map(dedent, more)]))
    return path


def task(folder: Path, *more: str, name: str = "task.py") -> Task:
    """Return the task of `write_task`, loaded."""
    return load_task(write_task(folder, *more, name=name))


def write_data(path: Path, examples: int = 12, validation: int = 5, seed: int = 0) -> Path:
    """Write examples of three classes that a linear model can tell apart; no validation split if `validation` is 0."""
    generator = np.random.default_rng(seed)
    arrays = {}
    for split, count in (("train", examples), ("validation", validation)):
        if count:
            inputs = generator.standard_normal((count, 2)).astype(np.float32)
            arrays[f"{split}_inputs"] = inputs
            arrays[f"{split}_targets"] = (inputs @ [[1, -1, 0], [0, -1, 1]]).argmax(axis=1)
    np.savez(path, **arrays)
    return path
