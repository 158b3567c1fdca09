"""Handwritten digits as 8 × 8 images: two convolutions, two linear layers; 5,130 weights."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )


def data(source: str, split: str) -> Dataset | None:
    with np.load(source) as arrays:
        if f"{split}_inputs" not in arrays:
            return None
        return TensorDataset(torch.from_numpy(arrays[f"{split}_inputs"]), torch.from_numpy(arrays[f"{split}_targets"]))
