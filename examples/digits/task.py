"""Handwritten digits: softmax regression on 8 × 8 pixels, each image scaled to unit norm."""

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset


def model() -> torch.nn.Module:
    return torch.nn.Linear(64, 10, bias=False)  # clipping is for the whole gradient: a bias would use half of it up


def data(source: str, split: str) -> Dataset | None:
    with np.load(source) as arrays:
        if f"{split}_inputs" not in arrays:
            return None
        return TensorDataset(torch.from_numpy(arrays[f"{split}_inputs"]), torch.from_numpy(arrays[f"{split}_targets"]))
